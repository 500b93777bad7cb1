/** Image files as the model takes them, named by content. */
import { createHash } from 'node:crypto'
import sharp from 'sharp'
import { foreignKind } from '../../models/io/image.ts'
import { openRegularFile } from '../../models/io/regular-file.ts'
import type { ImageSource } from '../../models/model.ts'

/** Reads a file and looks at its header, so that a wrong one is named before a model works on it. */
export async function imageFromFile(file: string): Promise<ImageSource> {
  const bytes = await readWhole(file).catch((cause: NodeJS.ErrnoException) => {
    const why = cause.code === 'ENOENT' ? 'does not exist' : `cannot be read (${cause.message})`
    throw new Error(`the image ${file} ${why}`, { cause })
  })
  const foreign = foreignKind(bytes)
  if (foreign !== null) throw new Error(`the image ${file} is ${foreign}`)
  await sharp(bytes)
    .metadata()
    .catch((cause: Error) => {
      throw new Error(`the image ${file} cannot be decoded (${cause.message}); convert it to PNG or JPEG`, { cause })
    })
  return { key: `sha256-${createHash('sha256').update(bytes).digest('hex')}`, read: () => Promise.resolve(bytes) }
}

async function readWhole(file: string): Promise<Buffer> {
  const handle = await openRegularFile(file)
  return handle.readFile().finally(() => handle.close())
}
