/** LoRA adapters as named tensors: creation, PEFT's files, merging (Hu et al. 2021; names and layout of PEFT). */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { randomKey, uniform } from '../generate/random.ts'
import { readJson } from '../io/json-file.ts'
import { readSafetensors, writeSafetensors } from '../io/safetensors.ts'
import { CheckpointError } from '../io/checkpoint-error.ts'
import { f32, type HostTensor, type Weights } from '../tensor.ts'
import { type LoraShape, loraNames } from '../layers/parameters.ts'

export interface Adapter {
  readonly shape: LoraShape
  readonly weights: Weights
}

const PREFIX = 'base_model.model.'

const configSchema = z.looseObject({
  peft_type: z.literal('LORA'),
  r: z.int().positive(),
  lora_alpha: z.number().positive(),
  use_dora: z.literal(false).nullish(),
  use_rslora: z.literal(false).nullish(),
  bias: z.literal('none').nullish(),
})

/**
 * A fresh adapter for every linear layer [out, in] whose module name matches `targets`: A uniform in
 * ±1/√in as PEFT initialises it, B zero, so that the model starts unchanged.
 */
export function createLora(
  linears: readonly { readonly name: string; readonly dims: readonly number[] }[],
  { r, alpha, targets, seed }: { r: number; alpha: number; targets: string; seed: number },
): Adapter {
  const pattern = new RegExp(targets)
  const weights: Record<string, HostTensor<'float32'>> = {}
  for (const { name, dims } of linears) {
    const module = name.replace(/\.weight$/, '')
    if (dims.length !== 2 || !name.endsWith('.weight') || !pattern.test(module)) continue
    const [out, into] = dims as [number, number]
    const { a, b } = loraNames(module)
    const key = randomKey(seed, a)
    const bound = 1 / Math.sqrt(into)
    weights[a] = f32(
      Float32Array.from({ length: r * into }, (_, i) => (2 * uniform(key, i, 0) - 1) * bound),
      [r, into],
    )
    weights[b] = f32(new Float32Array(out * r), [out, r])
  }
  if (Object.keys(weights).length === 0) throw new Error(`no linear layer matches the LoRA targets "${targets}"`)
  return { shape: { r, alpha }, weights }
}

/** Reads a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`). Throws CheckpointError naming the file. */
export async function readAdapter(dir: string): Promise<Adapter> {
  const config = await readJson(join(dir, 'adapter_config.json'), configSchema)
  const file = join(dir, 'adapter_model.safetensors')
  const weights: Record<string, HostTensor<'float32'>> = {}
  for (const [name, tensor] of Object.entries(await readSafetensors(file))) {
    if (!name.startsWith(PREFIX) || !/\.lora_[AB]\.weight$/.test(name) || tensor.dtype !== 'float32')
      throw new CheckpointError(`the tensor "${name}" is no LoRA matrix of a linear layer`, { file })
    weights[name] = tensor as HostTensor<'float32'>
  }
  return { shape: { r: config.r, alpha: config.lora_alpha }, weights }
}

/** Writes a PEFT folder that PEFT loads as it is. */
export async function writeAdapter(dir: string, { shape, weights }: Adapter, baseModel: string): Promise<void> {
  await mkdir(dir, { recursive: true })
  const modules = adaptedModules(weights)
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: baseModel,
    r: shape.r,
    lora_alpha: shape.alpha,
    lora_dropout: 0,
    bias: 'none',
    target_modules: modules,
    inference_mode: true,
  }
  await writeSafetensors(join(dir, 'adapter_model.safetensors'), weights, { format: 'pt' })
  await writeFile(join(dir, 'adapter_config.json'), `${JSON.stringify(config, null, 2)}\n`)
}

const adaptedModules = (weights: Weights): string[] =>
  Object.keys(weights)
    .filter((name) => name.endsWith('.lora_A.weight'))
    .map((name) => name.slice(PREFIX.length, -'.lora_A.weight'.length))

/** Names of the weights that an adapter changes. */
export const adaptedLayers = ({ weights }: Adapter): string[] =>
  adaptedModules(weights).map((module) => `${module}.weight`)

/** W + α/r · B·A for every adapted layer; other weights are passed through. */
export function mergeLora(base: Weights, { shape, weights }: Adapter): Weights {
  const merged: Record<string, HostTensor<'float32'>> = { ...base }
  for (const module of adaptedModules(weights)) {
    const target = base[`${module}.weight`]
    const names = loraNames(module)
    const a = weights[names.a]
    const b = weights[names.b]
    if (!target || !a || !b)
      throw new Error(`the adapter of "${module}" has no ${target ? 'B matrix' : 'layer in the model'}`)
    merged[`${module}.weight`] = f32(addProduct(target.data, b.data, a.data, shape), target.dims)
  }
  return merged
}

/** W [out, in] + α/r · B [out, r] · A [r, in], accumulated in float64. */
function addProduct(w: Float32Array, b: Float32Array, a: Float32Array, { r, alpha }: LoraShape): Float32Array {
  const out = b.length / r
  const into = a.length / r
  const sum = new Float64Array(into)
  const result = new Float32Array(w.length)
  for (let o = 0; o < out; o++) {
    sum.fill(0)
    for (let k = 0; k < r; k++) {
      const scale = (b[o * r + k]! * alpha) / r
      for (let i = 0; i < into; i++) sum[i]! += scale * a[k * into + i]!
    }
    for (let i = 0; i < into; i++) result[o * into + i] = w[o * into + i]! + sum[i]!
  }
  return result
}
