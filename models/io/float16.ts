/** Exact widening of 16-bit floating-point numbers. */

/** bfloat16 bits → float32: the upper half of the float32. */
export function bf16ToF32(bits: Uint16Array): Float32Array {
  const out = new Uint32Array(bits.length)
  for (let i = 0; i < bits.length; i++) out[i] = bits[i]! << 16
  return new Float32Array(out.buffer)
}

/** IEEE half bits → float32; subnormals, infinities and NaN included. */
export function f16ToF32(bits: Uint16Array): Float32Array {
  const table = (halves ??= Float32Array.from({ length: 1 << 16 }, (_, half) => widen(half)))
  const out = new Float32Array(bits.length)
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]!]!
  return out
}

/** Every half as float32, made on first use: a look-up is several times faster than the arithmetic. */
let halves: Float32Array | undefined

function widen(half: number): number {
  const sign = half & 0x8000 ? -1 : 1
  const exponent = (half >> 10) & 0x1f
  const fraction = half & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? NaN : sign * Infinity
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}
