/** Pictures of a pool as the model's pixels: uint8 [n, 64, 64, 3] → float32 [tiles, 3, 64, 64] in [−1, 1]. */
import { f32, type HostTensor } from '../../models/tensor.ts'
import type { Pool } from '../world/training-data.ts'

const SIDE = 64

export function pixelsOf(pool: Pool, images: readonly number[]): HostTensor<'float32'> {
  const plane = SIDE * SIDE
  const data = new Float32Array(images.length * 3 * plane)
  images.forEach((image, i) => {
    for (let p = 0; p < plane; p++)
      for (let c = 0; c < 3; c++) data[(i * 3 + c) * plane + p] = pool.pixels[(image * plane + p) * 3 + c]! / 127.5 - 1
  })
  return f32(data, [images.length, 3, SIDE, SIDE])
}
