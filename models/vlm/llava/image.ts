/** Picture → square of pixels, as CLIPImageProcessor and LlavaImageProcessor (Pillow route) of transformers do it. */
import type { RgbImage } from '../../io/image.ts'
import { resize } from '../../io/pil-resize.ts'
import type { LlavaImageSettings } from './image-settings.ts'

/** All steps before the normalisation. */
export function prepareImage(image: RgbImage, settings: LlavaImageSettings): RgbImage {
  const { padColour, crop } = settings
  const square = padColour ? padToSquare(image, padColour) : image
  const sized = resizeTo(square, settings)
  return crop ? centreCrop(sized, crop.width, crop.height) : sized
}

/** Resizes as the settings say. */
export function resizeTo(image: RgbImage, { size, filter }: LlavaImageSettings): RgbImage {
  if (size === null) return image
  if ('height' in size) return resize(image, size.width, size.height, filter)
  const { width, height } = image
  const [short, long] = width <= height ? [width, height] : [height, width]
  const longer = Math.trunc((size.shortestEdge * long) / short)
  const [w, h] = width <= height ? [size.shortestEdge, longer] : [longer, size.shortestEdge]
  return resize(image, w, h, filter)
}

/** Equal margins (the last one may be a pixel more) make the picture as high as wide. */
export function padToSquare(image: RgbImage, colour: readonly number[]): RgbImage {
  const { width, height } = image
  if (width === height) return image
  const side = Math.max(width, height)
  return place(image, side, side, Math.floor((side - width) / 2), Math.floor((side - height) / 2), colour)
}

/** The middle of the picture, with black margins where it is smaller. */
export function centreCrop(image: RgbImage, width: number, height: number): RgbImage {
  const [left, top] = [Math.floor((image.width - width) / 2), Math.floor((image.height - height) / 2)]
  if (left === 0 && top === 0 && image.width === width && image.height === height) return image
  return place(image, width, height, -left, -top)
}

/** An image of `width` × `height` with the picture at (x, y), cut where it stands out, `colour` around it. */
export function place(
  image: RgbImage,
  width: number,
  height: number,
  x: number,
  y: number,
  colour: readonly number[] = [0, 0, 0],
): RgbImage {
  const data = new Uint8Array(width * height * 3)
  if (colour.some((c) => c !== 0)) for (let i = 0; i < data.length; i++) data[i] = colour[i % 3]!
  const [fromX, toX] = [Math.max(0, -x), Math.min(image.width, width - x)]
  for (let row = Math.max(0, -y); row < Math.min(image.height, height - y); row++) {
    const from = row * image.width * 3
    data.set(image.data.subarray(from + fromX * 3, from + toX * 3), ((row + y) * width + x + fromX) * 3)
  }
  return { width, height, data }
}
