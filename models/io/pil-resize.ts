/**
 * Pillow's `Image.resize` for 8-bit RGB, bit for bit: fixed-point coefficients with 22 fractional bits, each pass
 * rounded to uint8, and Pillow 13's order of the passes. (libImaging/Resample.c.)
 */
import type { RgbImage } from './image.ts'

export type Filter = 'bilinear' | 'bicubic' | 'lanczos'

const precisionBits = 22

interface Kernel {
  readonly support: number
  readonly weight: (x: number) => number
}

const kernels: Readonly<Record<Filter, Kernel>> = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
}

/** Keys' cubic with a = −0.5. */
function cubic(value: number): number {
  const a = -0.5
  const x = Math.abs(value)
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a
  return 0
}

function sinc(x: number): number {
  if (x === 0) return 1
  const angle = x * Math.PI
  return Math.sin(angle) / angle
}

/** For each output position: its first input position, its number of taps, and `stride` fixed-point weights. */
interface Taps {
  readonly stride: number
  readonly first: Int32Array
  readonly count: Int32Array
  readonly weights: Int32Array
}

/** Taps by `in>out:filter`; bounded, since folders of photos have many sizes. */
const cache = new Map<string, Taps>()
const cacheLimit = 256

function tapsOf(size: number, out: number, filter: Filter): Taps {
  const key = `${size}>${out}:${filter}`
  let taps = cache.get(key)
  if (!taps) {
    if (cache.size >= cacheLimit) cache.clear()
    cache.set(key, (taps = computeTaps(size, out, kernels[filter])))
  }
  return taps
}

function computeTaps(size: number, out: number, { support, weight }: Kernel): Taps {
  const scale = size / out
  const widening = Math.max(scale, 1)
  const reach = support * widening
  const stride = Math.ceil(reach) * 2 + 1
  const taps = { stride, first: new Int32Array(out), count: new Int32Array(out), weights: new Int32Array(out * stride) }
  const raw = new Float64Array(stride)
  for (let i = 0; i < out; i++) {
    const centre = (i + 0.5) * scale
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0)
    const count = Math.min(Math.trunc(centre + reach + 0.5), size) - first
    let sum = 0
    for (let k = 0; k < count; k++) {
      // Pillow multiplies by the reciprocal; a division would round differently.
      raw[k] = weight((k + first - centre + 0.5) * (1 / widening))
      sum += raw[k]!
    }
    taps.first[i] = first
    taps.count[i] = count
    for (let k = 0; k < count; k++) taps.weights[i * stride + k] = fixedPoint(sum === 0 ? raw[k]! : raw[k]! / sum)
  }
  return taps
}

function fixedPoint(weight: number): number {
  return Math.trunc(weight * (1 << precisionBits) + (weight < 0 ? -0.5 : 0.5))
}

/** Resize to `width` × `height`; the same image when the size is already right. */
export function resize(image: RgbImage, width: number, height: number, filter: Filter): RgbImage {
  const { width: w, height: h } = image
  if (width < 1 || height < 1) throw new RangeError(`cannot resize ${w}×${h} to ${width}×${height}`)
  const rowsFirst = h > height && h - height > 2 * (w - width)
  return rowsFirst
    ? resizeWidth(resizeHeight(image, height, filter), width, filter)
    : resizeHeight(resizeWidth(image, width, filter), height, filter)
}

function resizeWidth(image: RgbImage, width: number, filter: Filter): RgbImage {
  const { width: w, height, data } = image
  if (width === w) return image
  const { stride, first, count, weights } = tapsOf(w, width, filter)
  const out = new Uint8ClampedArray(width * height * 3)
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0; x < width; x++, o += 3) {
      let r = 1 << (precisionBits - 1)
      let g = r
      let b = r
      let i = (y * w + first[x]!) * 3
      const end = x * stride + count[x]!
      for (let k = x * stride; k < end; k++, i += 3) {
        const weight = weights[k]!
        r = (r + weight * data[i]!) | 0
        g = (g + weight * data[i + 1]!) | 0
        b = (b + weight * data[i + 2]!) | 0
      }
      out[o] = r >> precisionBits
      out[o + 1] = g >> precisionBits
      out[o + 2] = b >> precisionBits
    }
  }
  return { width, height, data: new Uint8Array(out.buffer) }
}

function resizeHeight(image: RgbImage, height: number, filter: Filter): RgbImage {
  const { width, height: h, data } = image
  if (height === h) return image
  const { stride, first, count, weights } = tapsOf(h, height, filter)
  const row = width * 3
  const out = new Uint8ClampedArray(row * height)
  const sums = new Int32Array(row)
  for (let y = 0; y < height; y++) {
    sums.fill(1 << (precisionBits - 1))
    for (let k = 0; k < count[y]!; k++) {
      const weight = weights[y * stride + k]!
      const from = (first[y]! + k) * row
      for (let x = 0; x < row; x++) sums[x] = sums[x]! + weight * data[from + x]!
    }
    for (let x = 0; x < row; x++) out[y * row + x] = sums[x]! >> precisionBits
  }
  return { width, height, data: new Uint8Array(out.buffer) }
}
