/** Small pictures inside the page. */
import sharp from 'sharp'

const LARGEST_PX = 320

/** A data URI (WebP; lossless where the picture is tiny already), or null when the file cannot be read as an image. */
export async function thumbnail(file: string): Promise<string | null> {
  try {
    const image = sharp(file, { failOn: 'none' }).rotate()
    const { width = 0, height = 0 } = await image.metadata()
    const tiny = Math.max(width, height) <= 96
    const small = tiny ? image : image.resize(LARGEST_PX, LARGEST_PX, { fit: 'inside', withoutEnlargement: true })
    const bytes = await small.webp(tiny ? { lossless: true } : { quality: 72 }).toBuffer()
    return `data:image/webp;base64,${bytes.toString('base64')}`
  } catch {
    return null
  }
}
