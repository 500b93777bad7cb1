/** Writes a checkpoint with random weights once, into the folder for temporary files. */
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writeFileAtomically } from '../../models/io/atomic-file.ts'
import { encodeHeader } from '../../models/io/safetensors-header.ts'
import { sizeOf } from '../../models/tensor.ts'
import type { ExpectedWeight } from '../../models/layers/weights.ts'
import { familyOf } from '../../models/vlm/registry.ts'
import { Random } from '../world/random.ts'
import { type Architecture, type CheckpointPlan, checkpointPlan } from './architectures.ts'

/** Most bytes of one file of weights. */
const FILE_BYTES = 4e9
/** Random numbers of a tensor, repeated in a larger one: a prime, so that no two rows are alike. */
const PERIOD = 1_048_573

/** Folder of the checkpoint; weights that an earlier call wrote are used again. */
export async function benchCheckpoint(
  architecture: Architecture,
  pixels: number,
  root = join(tmpdir(), 'visplay-bench'),
): Promise<string> {
  const plan = checkpointPlan(architecture, pixels)
  const dir = join(root, `${architecture}-${pixels}`)
  await mkdir(dir, { recursive: true })
  await Promise.all(Object.entries(plan.files).map(([name, text]) => writeFile(join(dir, name), text)))
  const { architecture: own } = await (await familyOf(dir)).open(dir)
  await writeWeights(dir, shards(own.weights, plan.dtype), plan.dtype)
  return dir
}

/** One file, or several with an index, which is written last. */
export async function writeWeights(
  dir: string,
  files: readonly (readonly ExpectedWeight[])[],
  dtype: CheckpointPlan['dtype'],
) {
  const name = (i: number) =>
    files.length === 1 ? 'model.safetensors' : `model-${padded(i + 1)}-of-${padded(files.length)}.safetensors`
  for (const [i, weights] of files.entries()) {
    const file = join(dir, name(i))
    if (!existsSync(file)) await writeFileAtomically(file, randomWeights(weights, dtype))
  }
  if (files.length === 1) return
  const map = Object.fromEntries(files.flatMap((weights, i) => weights.map((w) => [w.name, name(i)])))
  await writeFile(join(dir, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: map }))
}

const padded = (n: number): string => String(n).padStart(5, '0')

const bytesOf = (dims: readonly number[], dtype: CheckpointPlan['dtype']): number =>
  (dtype === 'float32' ? 4 : 2) * sizeOf(dims)

/** Weights by file, each of at most so many bytes unless one tensor is larger. */
export function shards(
  weights: readonly ExpectedWeight[],
  dtype: CheckpointPlan['dtype'],
  most = FILE_BYTES,
): ExpectedWeight[][] {
  const files: ExpectedWeight[][] = [[]]
  let bytes = 0
  for (const weight of weights) {
    const own = bytesOf(weight.dims, dtype)
    if (bytes > 0 && bytes + own > most) {
      files.push([])
      bytes = 0
    }
    files.at(-1)!.push(weight)
    bytes += own
  }
  return files
}

/** In pieces: no tensor is ever whole in memory. */
function* randomWeights(expected: readonly ExpectedWeight[], dtype: CheckpointPlan['dtype']): Generator<Uint8Array> {
  const stored = dtype === 'float32' ? 'F32' : 'BF16'
  yield encodeHeader(
    expected.map(({ name, dims }) => [name, stored, dims]),
    { format: 'pt' },
  )
  for (const { name, dims } of expected) {
    const values = randomValues(name, dims)
    const piece = new Uint8Array(dtype === 'float32' ? values.buffer : upperHalves(values).buffer)
    for (let left = bytesOf(dims, dtype); left > 0; left -= piece.length) yield piece.subarray(0, left)
  }
}

/** Uniform with the variance of common initialisations; norms 1, biases 0. At most PERIOD numbers. */
function randomValues(name: string, dims: readonly number[]): Float32Array {
  const size = sizeOf(dims)
  const values = new Float32Array(Math.min(size, PERIOD))
  if (name.endsWith('bias')) return values
  if (dims.length === 1) return values.fill(1)
  const spread = Math.sqrt(3) * (/embed|lm_head/.test(name) ? 0.02 : (size / dims[0]!) ** -0.5)
  const random = new Random('bench', name)
  for (let i = 0; i < values.length; i++) values[i] = (2 * random.float() - 1) * spread
  return values
}

/** float32 → bfloat16 by truncation. */
function upperHalves(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint16Array(values.buffer)
  return Uint16Array.from({ length: values.length }, (_, i) => bits[2 * i + 1]!)
}
