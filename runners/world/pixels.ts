/** What a camera and a file do to a picture after drawing: hue, contrast, brightness, sensor noise. */
import type { Random } from './random.ts'

/** Standard deviation of a sum of four uniform bytes. */
const FOUR_BYTES = 2 * Math.sqrt((256 ** 2 - 1) / 12)

/** Changes RGB uint8 pixels in place for a severity in [0, 1]; 0 leaves only faint noise. */
export function degrade(pixels: Uint8Array, random: Random, severity: number): void {
  const contrast = 1 - 0.3 * severity * random.float()
  const offset = 118 * (1 - contrast) + random.uniform(-18, 18) * severity
  const sigma = 2 + 22 * severity * random.uniform(0.2, 1)
  const [a, b, c] = hueRotation(random.uniform(-1, 1) * 8 * severity).map((v) => v * contrast) as [
    number,
    number,
    number,
  ]
  const noise = sigma / FOUR_BYTES
  for (let i = 0; i < pixels.length; i += 3) {
    const [r, g, u] = [pixels[i]!, pixels[i + 1]!, pixels[i + 2]!]
    // Assigning to a Uint8Array wraps around; clamp first.
    pixels[i] = clamp(a * r + c * g + b * u + offset + noise * fourBytes(random))
    pixels[i + 1] = clamp(b * r + a * g + c * u + offset + noise * fourBytes(random))
    pixels[i + 2] = clamp(c * r + b * g + a * u + offset + noise * fourBytes(random))
  }
}

/** First row, as [own, next, after], of the circulant matrix that turns RGB around the gray axis. */
function hueRotation(degrees: number): [number, number, number] {
  const angle = (degrees * Math.PI) / 180
  const k = (1 - Math.cos(angle)) / 3
  const q = Math.sqrt(1 / 3) * Math.sin(angle)
  return [Math.cos(angle) + k, k + q, k - q]
}

/** Near normal with mean 0 (Irwin–Hall with n = 4), from one draw. */
function fourBytes(random: Random): number {
  const x = random.uint32()
  return (x & 255) + ((x >>> 8) & 255) + ((x >>> 16) & 255) + (x >>> 24) - 510
}

function clamp(value: number): number {
  return value < 0 ? 0 : value > 255 ? 255 : value + 0.5
}
