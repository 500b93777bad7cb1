/** The colours behind the colour words. */
import type { Color } from './scene.ts'

export type Rgb = readonly [red: number, green: number, blue: number]

/** sRGB, 0–255: how a colour looks in clean pictures, and another shade of the same name towards which shifted ones drift. */
export const PALETTE: Readonly<Record<Color, { readonly clean: Rgb; readonly other: Rgb }>> = {
  red: { clean: [222, 36, 36], other: [186, 16, 40] },
  green: { clean: [38, 160, 58], other: [104, 190, 70] },
  blue: { clean: [42, 82, 226], other: [72, 132, 240] },
  yellow: { clean: [250, 222, 40], other: [246, 234, 110] },
  purple: { clean: [132, 46, 180], other: [158, 92, 214] },
  orange: { clean: [250, 132, 20], other: [244, 150, 62] },
  pink: { clean: [250, 150, 192], other: [246, 120, 176] },
  brown: { clean: [116, 68, 32], other: [138, 88, 50] },
  gray: { clean: [130, 130, 130], other: [122, 126, 132] },
  black: { clean: [20, 20, 22], other: [40, 40, 42] },
  white: { clean: [252, 252, 252], other: [244, 242, 234] },
  teal: { clean: [12, 150, 152], other: [40, 172, 170] },
}

/** Linear blend, t = 0 gives `a`. */
export function blend(a: Rgb, b: Rgb, t: number): Rgb {
  const at = (i: 0 | 1 | 2): number => a[i] + (b[i] - a[i]) * t
  return [at(0), at(1), at(2)]
}

/** Perceived lightness, 0–255 (Rec. 709 luma). */
export function luma(color: Rgb): number {
  return 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2]
}

/** CSS notation. */
export function css(color: Rgb): string {
  return `rgb(${color.map((c) => Math.round(Math.min(255, Math.max(0, c)))).join()})`
}
