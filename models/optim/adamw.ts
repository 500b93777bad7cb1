/** AdamW with decoupled weight decay (Loshchilov & Hutter 2019), step for step as torch.optim.AdamW. */
import { type HostTensor, type Weights, f32 } from '../tensor.ts'

export interface AdamWOptions {
  readonly lr: number
  readonly betas: readonly [number, number]
  readonly eps: number
  readonly weightDecay: number
  /** Multiplies every gradient first (`clipScale`); 1 when absent. */
  readonly gradientScale?: number
}

/** Immutable: a step returns a new state, so that an update that loses its commit leaves no trace. */
export interface AdamWState {
  /** Steps taken. */
  readonly step: number
  /** Running means of gradients and of their squares, by parameter name. */
  readonly first: Weights
  readonly second: Weights
}

export class OptimizerStateError extends Error {
  override name = 'OptimizerStateError'
}

/** Fresh state: no step taken, moments zero. */
export function initAdamW(weights: Weights): AdamWState {
  const zeros = () =>
    Object.fromEntries(Object.entries(weights).map(([k, w]) => [k, f32(new Float32Array(w.data.length), w.dims)]))
  return { step: 0, first: zeros(), second: zeros() }
}

/**
 * One update. Nothing given is changed; weights and moments come back as new tensors.
 *
 * @throws OptimizerStateError when gradients, state and weights do not have the same names and sizes.
 */
export function stepAdamW(
  state: AdamWState,
  weights: Weights,
  gradients: Weights,
  options: AdamWOptions,
): { readonly state: AdamWState; readonly weights: Weights } {
  checkNames('gradient', weights, gradients)
  checkNames('moment', weights, state.first)
  checkNames('moment', weights, state.second)
  const step = state.step + 1
  const updated: Record<string, HostTensor<'float32'>> = {}
  const first: Record<string, HostTensor<'float32'>> = {}
  const second: Record<string, HostTensor<'float32'>> = {}
  for (const [name, { dims, data }] of Object.entries(weights)) {
    const w = data.slice()
    const m = state.first[name]!.data.slice()
    const v = state.second[name]!.data.slice()
    updateArrays(w, m, v, gradients[name]!.data, step, options)
    updated[name] = f32(w, dims)
    first[name] = f32(m, dims)
    second[name] = f32(v, dims)
  }
  return { state: { step, first, second }, weights: updated }
}

/** The arithmetic of one parameter, in place. Kept apart so that the JIT compiles one tight loop. */
function updateArrays(
  w: Float32Array,
  m: Float32Array,
  v: Float32Array,
  gradient: Float32Array,
  step: number,
  options: AdamWOptions,
): void {
  const [beta1, beta2] = options.betas
  const scale = options.gradientScale ?? 1
  const decay = 1 - options.lr * options.weightDecay
  const stepSize = options.lr / (1 - beta1 ** step)
  const root = 1 / Math.sqrt(1 - beta2 ** step)
  const eps = options.eps
  for (let i = 0; i < w.length; i++) {
    const g = gradient[i]! * scale
    const mean = m[i]! + (g - m[i]!) * (1 - beta1)
    const square = v[i]! * beta2 + g * g * (1 - beta2)
    m[i] = mean
    v[i] = square
    w[i] = w[i]! * decay - (stepSize * mean) / (Math.sqrt(square) * root + eps)
  }
}

function checkNames(what: string, weights: Weights, others: Weights): void {
  for (const [name, { data }] of Object.entries(weights)) {
    const other = others[name]
    if (!other) throw new OptimizerStateError(`no ${what} for parameter ${name}`)
    if (other.data.length !== data.length) {
      throw new OptimizerStateError(`${what} of ${name} has ${other.data.length} values, expected ${data.length}`)
    }
  }
  const extra = Object.keys(others).find((name) => !(name in weights))
  if (extra !== undefined) throw new OptimizerStateError(`${what} for ${extra}, which is not a trainable parameter`)
}

const FIRST = 'moments/first/'
const SECOND = 'moments/second/'
const STEP = 'moments/step'

/** The state as flat named tensors, for a checkpoint: `moments/first/NAME`, `moments/second/NAME`, `moments/step` []. */
export function adamWToTensors(state: AdamWState): Weights {
  const prefixed = (prefix: string, tensors: Weights) => Object.entries(tensors).map(([k, t]) => [prefix + k, t])
  return Object.fromEntries([
    [STEP, f32([state.step], [])],
    ...prefixed(FIRST, state.first),
    ...prefixed(SECOND, state.second),
  ]) as Weights
}

/**
 * Inverse of `adamWToTensors`; tensors under other names are ignored.
 *
 * @throws OptimizerStateError when the step count is missing.
 */
export function adamWFromTensors(tensors: Weights): AdamWState {
  const step = tensors[STEP]?.data[0]
  if (step === undefined) throw new OptimizerStateError(`the optimizer's checkpoint has no tensor ${STEP}`)
  const under = (prefix: string) =>
    Object.fromEntries(
      Object.entries(tensors)
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, tensor]) => [name.slice(prefix.length), tensor]),
    )
  return { step, first: under(FIRST), second: under(SECOND) }
}
