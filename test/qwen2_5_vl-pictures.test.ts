import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { RgbImage } from '../models/io/image.ts'
import { type ImageSettings, patchImage } from '../models/vlm/qwen2_5_vl/patches.ts'
import { prefixPositions } from '../models/vlm/qwen2_5_vl/rope-index.ts'
import { smartResize } from '../models/vlm/qwen2_5_vl/smart-resize.ts'
import { windowIndex } from '../models/vlm/qwen2_5_vl/windows.ts'

const side = fc.integer({ min: 1, max: 9 })
const grids = fc.array(fc.record({ rows: side, cols: side }), { maxLength: 3 })

describe('smart resize', () => {
  // From smart_resize of transformers 5.23.0: width, height, factor, fewest and most pixels → width, height.
  it.each([
    [480, 640, 28, 3136, 1003520, 476, 644],
    [3000, 4000, 28, 3136, 12845056, 2996, 4004],
    [14, 14, 28, 3136, 1003520, 56, 56],
    [70, 42, 28, 784, 1003520, 56, 56],
    [126, 98, 28, 784, 100000000, 112, 112],
    [200, 1, 28, 3136, 15680, 812, 28],
    [211, 37, 28, 3136, 9408, 224, 28],
    [30, 5000, 28, 3136, 1003520, 28, 5012],
    [2018, 385, 28, 200704, 1003520, 2016, 392],
    [438, 2422, 32, 3136, 15680, 32, 288],
    [2993, 1729, 28, 3136, 1003520, 1316, 756],
  ])('of %i × %i by %i within %i to %i pixels', (width, height, factor, minPixels, maxPixels, w, h) => {
    expect(smartResize({ width, height }, factor, { minPixels, maxPixels })).toEqual({ width: w, height: h })
  })

  it('refuses what is too long', () => {
    const bounds = { minPixels: 3136, maxPixels: 1003520 }
    expect(() => smartResize({ width: 201, height: 1 }, 28, bounds)).toThrow('aspect ratio of 201.0; at most 200')
  })
})

describe('patches', () => {
  const settings: ImageSettings = {
    ...{ bounds: null, filter: 'bicubic', rescale: 1 / 255, patch: 2, temporalPatch: 2, merge: 2 },
    normalize: { mean: [0.5, 0.25, 0], std: [0.5, 0.25, 1] },
  }
  /** 8 × 4 pixels; every value tells its place. */
  const image: RgbImage = { width: 8, height: 4, data: Uint8Array.from({ length: 96 }, (_, i) => i) }

  it('hold channel, frame, y, x of places in the order of image tokens', () => {
    const { rows, cols, uint8, pixelValues } = patchImage(image, settings)
    expect([rows, cols]).toEqual([1, 2])
    const [token, patch, channel, frame, y, x] = [1, 2, 1, 1, 1, 0]
    const at = ((((token * 4 + patch) * 3 + channel) * 2 + frame) * 2 + y) * 2 + x
    // Token 1 starts at pixel 4, its patch 2 is the lower left one.
    const value = ((2 + y) * 8 + 4 + x) * 3 + channel
    expect(uint8[at]).toBe(value)
    expect(pixelValues[at]).toBeCloseTo((value / 255 - 0.25) / 0.25, 5)
    for (let i = 0; i < uint8.length; i += 8)
      expect([...uint8.subarray(i, i + 4)]).toEqual([...uint8.subarray(i + 4, i + 8)])
  })

  it('are not more than attention can take', () => {
    const large = { width: 364, height: 364, data: new Uint8Array(0) }
    expect(() => patchImage(large, settings)).toThrow('8281 image tokens, at most 8192 fit: lower max_pixels')
  })

  it('need sides that fit where nothing may be resized', () => {
    const odd = { ...image, width: 6, data: image.data.subarray(0, 72) }
    expect(() => patchImage(odd, settings)).toThrow('6×4 is no multiple of 4')
  })
})

it('windows hold every image token once, with its neighbours of the same picture', () => {
  fc.assert(
    fc.property(grids, fc.integer({ min: 1, max: 4 }), (all, side) => {
      const { order, bounds } = windowIndex(all, side)
      const places = all.flatMap(({ rows, cols }, picture) =>
        Array.from({ length: rows * cols }, (_, i) => [picture, Math.floor(i / cols), i % cols] as const),
      )
      expect(order.toSorted((a, b) => a - b)).toEqual([...places.keys()])
      const windowOf = (token: number) => {
        const [picture, row, col] = places[token]!
        return [picture, Math.floor(row / side), Math.floor(col / side)].join()
      }
      const windows = bounds.slice(1).map((end, i) => order.slice(bounds[i], end))
      for (const tokens of windows) {
        expect(new Set(tokens.map(windowOf)).size).toBe(1)
        expect(tokens).toEqual(tokens.toSorted((a, b) => a - b))
      }
      expect(windows.length).toBe(new Set(places.map((_, token) => windowOf(token))).size)
    }),
  )
})

describe('M-RoPE positions', () => {
  const IMAGE = 9

  it('of text, a picture of 2 × 3 tokens, and text', () => {
    const ids = [1, 2, ...new Array<number>(6).fill(IMAGE), 3, 4]
    const { values, next } = prefixPositions(ids, [{ rows: 2, cols: 3 }], IMAGE)
    expect([0, 10, 20].map((at) => [...values.subarray(at, at + 10)])).toEqual([
      [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
      [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
      [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ])
    expect(next).toBe(7)
  })

  it('go on from the largest one, whatever comes', () => {
    fc.assert(
      fc.property(grids, fc.array(fc.nat({ max: 3 }), { minLength: 4, maxLength: 4 }), (all, texts) => {
        const text = (i: number) => new Array<number>(texts[i]!).fill(1)
        const ids = [...text(0)]
        all.forEach(({ rows, cols }, i) => ids.push(...new Array<number>(rows * cols).fill(IMAGE), ...text(i + 1)))
        const { values, next } = prefixPositions(ids, all, IMAGE)
        const positions = [0, 1, 2].map((axis) => [...values.subarray(axis * ids.length, (axis + 1) * ids.length)])
        let most = -1
        ids.forEach((id, i) => {
          const own = positions.map((axis) => axis[i]!)
          if (id !== IMAGE) expect(own).toEqual([most + 1, most + 1, most + 1])
          else expect(own[0]).toBeLessThanOrEqual(Math.min(own[1]!, own[2]!))
          if (id !== IMAGE || ids[i + 1] !== IMAGE)
            most = Math.max(most, ...positions.flatMap((a) => a.slice(0, i + 1)))
        })
        expect(next).toBe(most + 1)
      }),
    )
  })

  it('need as many placeholders as the pictures have tokens', () => {
    expect(() => prefixPositions([IMAGE, IMAGE, 1], [{ rows: 1, cols: 3 }], IMAGE)).toThrow(
      'do not match its 1×3 tokens',
    )
    expect(() => prefixPositions([IMAGE, 1], [], IMAGE)).toThrow('picture 1')
    expect(() => prefixPositions([1], [{ rows: 1, cols: 1 }], IMAGE)).toThrow('1 pictures, but 0 in the prompt')
  })
})
