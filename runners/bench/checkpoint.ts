/** Writes a checkpoint with random weights once, into the folder for temporary files. */
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writeFileAtomically } from '../../models/io/atomic-file.ts'
import { encodeHeader } from '../../models/io/safetensors-header.ts'
import { sizeOf } from '../../models/tensor.ts'
import type { ExpectedWeight } from '../../models/layers/weights.ts'
import { loadSmolVlmConfig } from '../../models/vlm/smolvlm/config.ts'
import { expectedWeights } from '../../models/vlm/smolvlm/weights.ts'
import { Random } from '../world/random.ts'
import { type Architecture, type CheckpointPlan, checkpointPlan } from './architectures.ts'

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
  const weights = join(dir, 'model.safetensors')
  if (!existsSync(weights)) {
    const expected = expectedWeights(await loadSmolVlmConfig(dir))
    await writeFileAtomically(weights, randomWeights(expected, plan.dtype))
  }
  return dir
}

function* randomWeights(expected: readonly ExpectedWeight[], dtype: CheckpointPlan['dtype']): Generator<Uint8Array> {
  const stored = dtype === 'float32' ? 'F32' : 'BF16'
  yield encodeHeader(
    expected.map(({ name, dims }) => [name, stored, dims]),
    { format: 'pt' },
  )
  for (const { name, dims } of expected) {
    const values = randomTensor(name, dims)
    yield new Uint8Array(dtype === 'float32' ? values.buffer : upperHalves(values).buffer)
  }
}

/** Uniform with the variance of common initialisations; norms 1, biases 0. */
function randomTensor(name: string, dims: readonly number[]): Float32Array {
  const values = new Float32Array(sizeOf(dims))
  if (name.endsWith('bias')) return values
  if (dims.length === 1) return values.fill(1)
  const fanIn = values.length / dims[0]!
  const spread = Math.sqrt(3) * (/embed|lm_head/.test(name) ? 0.02 : fanIn ** -0.5)
  const random = new Random('bench', name)
  for (let i = 0; i < values.length; i++) values[i] = (2 * random.float() - 1) * spread
  return values
}

/** float32 → bfloat16 by truncation. */
function upperHalves(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint16Array(values.buffer)
  return Uint16Array.from({ length: values.length }, (_, i) => bits[2 * i + 1]!)
}
