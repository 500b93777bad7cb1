/** A checkpoint whose weights are stored as bfloat16, in two shards, behind symbolic links as in the hub's cache. */
import { cp, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openCheckpoint } from '../../models/io/safetensors.ts'
import { encodeHeader } from '../../models/io/safetensors-header.ts'

/** Makes `<root>/snapshot` from a checkpoint; its shards are links into `<root>/blobs`. */
export async function halfCheckpoint(from: string, root: string): Promise<string> {
  const [to, blobs] = [join(root, 'snapshot'), join(root, 'blobs')]
  await cp(from, to, { recursive: true, filter: (file) => !/\.safetensors(\.index\.json)?$/.test(file) })
  await mkdir(blobs)
  const checkpoint = await openCheckpoint(from)
  const names = checkpoint.names()
  const tensors = await Promise.all(names.map(async (name) => [name, await checkpoint.readF32(name)] as const))
  await checkpoint.close()
  const weightMap: Record<string, string> = {}
  for (const part of [0, 1]) {
    const name = `model-0000${part + 1}-of-00002.safetensors`
    const own = tensors.filter((_, i) => i % 2 === part)
    const header = encodeHeader(
      own.map(([tensor, { dims }]) => [tensor, 'BF16', dims]),
      { format: 'pt' },
    )
    const halves = own.map(([, { data }]) => upperHalves(data))
    await writeFile(join(blobs, `blob${part}`), Buffer.concat([header, ...halves]))
    await symlink(join('..', 'blobs', `blob${part}`), join(to, name))
    for (const [tensor] of own) weightMap[tensor] = name
  }
  await writeFile(join(to, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }))
  return to
}

/** float32 → bfloat16 by truncation. */
function upperHalves(values: Float32Array): Uint8Array {
  const bits = new Uint16Array(values.buffer, values.byteOffset, 2 * values.length)
  return new Uint8Array(Uint16Array.from({ length: values.length }, (_, i) => bits[2 * i + 1]!).buffer)
}
