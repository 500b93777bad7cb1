/** The graphs of the tiny model on a device, against the CPU, and where their nodes ran. */
import { join } from 'node:path'
import { loadConfig, PACKAGE_ROOT } from '../../configs/load.ts'
import type { Generated, GenerateRequest, PolicyGradient, PolicyGroup } from '../../models/model.ts'
import { Profile } from '../../models/runtime/profile.ts'
import { type Device, tensorsOnDevices } from '../../models/runtime/session.ts'
import { f32, type Weights } from '../../models/tensor.ts'
import { openModel } from '../../models/vlm/open.ts'
import type { VlmModel } from '../../models/vlm/model.ts'
import { lossOf } from '../evolve/assemble-options.ts'
import { trainMode } from '../evolve/train-mode.ts'
import { looksFor, scenesFor } from '../world/dataset.ts'
import { encodePng, pictureAt, renderScenes } from '../world/render.ts'
import { type DeviceCheck, type DeviceResult, errorOf, largestError, placed } from './finding.ts'

/** Of logprobs, relative to 1 + |logprob|, and of gradients, relative to the largest one of their tensor. */
const TOLERANCE = 1e-3
/** Gradients this much smaller than the largest one of all are rounding: a bias of keys, for instance, changes nothing. */
const ROUNDING = 1e-3

const SEED = 1
const TRAINED = { full: 'all weights', lora: 'LoRA' } as const

export const graphChecks: readonly DeviceCheck[] = (['full', 'lora'] as const).map((train) => ({
  name: `model, ${TRAINED[train]} trained`,
  run: (device) => checkModel(train, device),
}))

async function* checkModel(train: keyof typeof TRAINED, device: Device): AsyncGenerator<DeviceResult> {
  const config = loadConfig({ sets: [`model.train=${train}`, 'loss.beta=0.04'] })
  const options = { threads: 1, train: trainMode(config.model, SEED) }
  const dir = join(PACKAGE_ROOT, 'models', 'tiny')
  const profile = new Profile()
  const expected = await openModel(dir, options)
  const actual = await openModel(dir, { ...options, device }, { profile })
  const requests = await questions()
  const suffix = `(${TRAINED[train]})`
  try {
    // The second version replaces weights that are on the device already.
    for (const version of [0, 1]) {
      const weights = moved(expected.trainable(), version)
      for (const model of [expected, actual]) model.load(weights)
      const sampled = await expected.generate(requests)
      yield sameSamples(`generation ${suffix}, version ${version}`, await actual.generate(requests), sampled)
      const groups = groupsOf(requests, sampled)
      const gradient = (model: VlmModel) => model.policyGradient(groups, lossOf(config))
      yield sameGradient(`gradient ${suffix}, version ${version}`, await gradient(actual), await gradient(expected))
    }
  } finally {
    await Promise.all([expected.dispose(), actual.dispose()])
  }
  const held = tensorsOnDevices()
  const detail = held === 0 ? 'all tensors given back' : `${held} tensors were never given back`
  yield { check: `memory ${suffix}`, status: held === 0 ? 'ok' : 'fail', detail }
  for (const graph of new Set(profile.nodes.map((n) => n.graph))) {
    const nodes = profile.nodes.filter((n) => n.graph === graph)
    yield placed(`graph ${graph.split(' {')[0]} ${suffix}`, nodes, device)
  }
}

/** Two pictures, two prompts each, sampled and greedy. */
async function questions(): Promise<GenerateRequest[]> {
  const looks = looksFor('images', { domain: 'shifted', seed: SEED })
  const pixels = await renderScenes(scenesFor('images', 2, SEED), looks)
  const pictures = await Promise.all([0, 1].map((i) => encodePng(pictureAt(pixels, i))))
  return pictures.flatMap((png, i) => {
    const image = { key: `picture ${i}`, read: () => Promise.resolve(png) }
    return ['what color is the star?', 'ask'].map((prompt, p) => ({
      ...{ key: `${i} ${prompt}`, image, prompt, maxNewTokens: 8, seed: SEED },
      ...(p === 0 && i === 0 ? { samples: 1, temperature: 0 } : { samples: 4, temperature: 1 }),
    }))
  })
}

/** Every weight a little off, so that LoRA's B is not zero and versions differ. */
function moved(weights: Weights, version: number): Weights {
  const near = ({ data, dims }: Weights[string]) =>
    f32(
      data.map((x, i) => x + 2e-3 * Math.sin(i + version)),
      dims,
    )
  return Object.fromEntries(Object.entries(weights).map(([name, tensor]) => [name, near(tensor)]))
}

/** The samples as if rewards had told them apart; a sampler a little off. */
function groupsOf(requests: readonly GenerateRequest[], generated: readonly Generated[]): PolicyGroup[] {
  return requests.map(({ image, prompt }, r) => ({
    image,
    prompt,
    completions: generated[r]!.samples.map(({ tokens, logprobs }, i) => ({
      tokens,
      logprobs: logprobs.map((x) => x - 0.05 * i),
      advantage: i % 2 === 0 ? 1 : -1,
      weight: 0.05,
    })),
  }))
}

function sameSamples(check: string, actual: readonly Generated[], expected: readonly Generated[]): DeviceResult {
  const [own, wanted] = [actual, expected].map((list) => list.flatMap(({ samples }) => samples))
  const tokens = (samples: typeof own) => samples!.flatMap((s) => s.tokens)
  const maxError = largestError(
    own!.flatMap((s) => s.logprobs),
    wanted!.flatMap((s) => s.logprobs),
  )
  if (tokens(own).join() !== tokens(wanted).join())
    return { check, status: 'fail', detail: 'other tokens than on the CPU', ...errorOf(maxError) }
  return judged(check, maxError, `${tokens(own).length} tokens, logprobs`)
}

function sameGradient(check: string, actual: PolicyGradient, expected: PolicyGradient): DeviceResult {
  const names = Object.keys(expected.gradients)
  const largest = (name: string) => expected.gradients[name]!.data.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
  const least = ROUNDING * Math.max(...names.map(largest))
  const errors = names.map((name) => {
    const scale = Math.max(largest(name), least)
    const scaled = ({ gradients }: PolicyGradient) => gradients[name]!.data.map((x) => x / scale)
    return largestError(scaled(actual), scaled(expected))
  })
  const metrics = ({ loss, metrics }: PolicyGradient) => [loss, ...Object.values(metrics)]
  const maxError = Math.max(...errors, largestError(metrics(actual), metrics(expected)))
  return judged(check, maxError, `${names.length} tensors, metrics`)
}

function judged(check: string, maxError: number, what: string): DeviceResult {
  const right = maxError <= TOLERANCE
  return {
    check,
    status: right ? 'ok' : 'fail',
    detail: `${what}: off by ${maxError.toExponential(1)}${right ? '' : `, more than ${TOLERANCE}`}`,
    ...errorOf(maxError),
  }
}
