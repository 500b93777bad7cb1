/** Scene → SVG of one 64×64 tile. */
import { blend, css, luma, PALETTE } from './palette.ts'
import type { Rgb } from './palette.ts'
import type { Random } from './random.ts'
import type { Scene, SceneObject, Shape, Size } from './scene.ts'

/** Pixels along one side of a picture. */
export const IMAGE_SIZE = 64
const CELL = IMAGE_SIZE / 2

/** Outlines of radius about 1 around the origin. */
const PATHS: Readonly<Record<Shape, string>> = {
  circle: disc(0.98),
  square: polygon([-0.86, -0.86], [0.86, -0.86], [0.86, 0.86], [-0.86, 0.86]),
  rectangle: polygon([-1.12, -0.54], [1.12, -0.54], [1.12, 0.54], [-1.12, 0.54]),
  triangle: polygon([0, -1.02], [1.08, 0.84], [-1.08, 0.84]),
  star: polygon(...starPoints(5, 1.16, 0.47)),
  cross: cross(1.04, 0.34),
  ring: disc(1.02) + disc(0.52),
}

/** SVG markup of a scene for severity in [0, 1] (0 = clean). `id` makes the names of its gradients unique in a document. */
export function drawScene(scene: Scene, random: Random, severity: number, id: string): string {
  return background(random, severity, id) + scene.map((o) => object(o, random, severity)).join('')
}

function object(o: SceneObject, random: Random, severity: number): string {
  const radius = o.size === 'big' ? random.uniform(10.6, 12) : random.uniform(5.8, 6.8)
  const room = Math.min(15.5 - 1.16 * radius, 4)
  const x = CELL * (o.column === 'left' ? 0.5 : 1.5) + random.uniform(-room, room)
  const y = CELL * (o.row === 'top' ? 0.5 : 1.5) + random.uniform(-room, room)
  const upright = o.shape === 'rectangle' && random.chance(0.5) ? 90 : 0
  const angle = upright + random.uniform(-1, 1) * (5 + 22 * severity)
  const { clean, other } = PALETTE[o.color]
  const shaded = blend(clean, other, random.float() * Math.min(1, 1.2 * severity))
  const fill = shaded.map((c) => c + random.uniform(-1, 1) * (4 + 4 * severity)) as unknown as Rgb
  const edge = outline(fill, o.size, random, severity)
  return (
    `<path d="${PATHS[o.shape]}" fill-rule="evenodd" stroke-linejoin="round" fill="${css(fill)}" ` +
    `stroke="${css(edge.color)}" stroke-width="${round(edge.width / radius)}" ` +
    `opacity="${round(1 - random.uniform(0, 0.16) * severity)}" ` +
    `transform="translate(${round(x)},${round(y)})rotate(${round(angle)})scale(${round(radius)})"/>`
  )
}

/**
 * A rim in a darker shade of the colour itself keeps white on light and gray on gray visible; shifted pictures mix in dark
 * and light rims. The rim is drawn over the edge, half of it outside.
 */
function outline(fill: Rgb, size: Size, random: Random, severity: number): { color: Rgb; width: number } {
  const own = { color: blend(fill, [0, 0, 0], 0.42), width: 1 }
  if (!random.chance(severity * 0.8)) return own
  const width = random.uniform(0.7, size === 'big' ? 1.7 : 1.2)
  const light = luma(fill) < 170 && random.chance(0.5)
  return { color: light ? [246, 246, 242] : [26, 26, 30], width }
}

function background(random: Random, severity: number, id: string): string {
  const tint = (low: number, high: number, spread: number): Rgb => {
    const level = random.uniform(low, high)
    const channel = (): number => level + random.uniform(-spread, spread)
    return [channel(), channel(), channel()]
  }
  const plain = tint(178, 212, 10)
  const full = `width="${IMAGE_SIZE}" height="${IMAGE_SIZE}"`
  if (severity === 0) return `<rect ${full} fill="${css(plain)}"/>`
  const stop = (): Rgb => blend(plain, tint(80, 235, 45), severity)
  const across = gradientVector(random.uniform(0, 2 * Math.PI), IMAGE_SIZE)
  return (
    `<linearGradient id="g${id}" gradientUnits="userSpaceOnUse" ${across}>` +
    `<stop stop-color="${css(stop())}"/><stop offset="1" stop-color="${css(stop())}"/></linearGradient>` +
    `<rect ${full} fill="url(#g${id})"/>` +
    texture(random, severity, id, full)
  )
}

/** Stripes as a repeating gradient, or dots as a pattern, over the whole tile. */
function texture(random: Random, severity: number, id: string, full: string): string {
  const ink = css(random.chance(0.5) ? [20, 20, 30] : [250, 250, 245])
  const strength = round(severity * random.uniform(0.08, 0.42))
  const period = random.uniform(4, 11)
  if (random.chance(0.6)) {
    const along = gradientVector(random.uniform(0, Math.PI), period)
    return (
      `<linearGradient id="t${id}" gradientUnits="userSpaceOnUse" spreadMethod="reflect" ${along}>` +
      `<stop offset=".3" stop-color="${ink}" stop-opacity="0"/><stop offset=".7" stop-color="${ink}"/>` +
      `</linearGradient><rect ${full} fill="url(#t${id})" opacity="${strength}"/>`
    )
  }
  const side = round(period)
  const dot = round(period * random.uniform(0.2, 0.36))
  const angle = round(random.uniform(0, 90))
  return (
    `<pattern id="t${id}" patternUnits="userSpaceOnUse" width="${side}" height="${side}" ` +
    `patternTransform="rotate(${angle})"><circle cx="${side / 2}" cy="${side / 2}" r="${dot}" fill="${ink}"/></pattern>` +
    `<rect ${full} fill="url(#t${id})" opacity="${strength}"/>`
  )
}

/** Attributes of a gradient of the given length through the centre of the tile. */
function gradientVector(angle: number, length: number): string {
  const [dx, dy] = [(Math.cos(angle) * length) / 2, (Math.sin(angle) * length) / 2]
  return `x1="${round(CELL - dx)}" y1="${round(CELL - dy)}" x2="${round(CELL + dx)}" y2="${round(CELL + dy)}"`
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000
}

function polygon(...points: readonly (readonly [number, number])[]): string {
  return `M${points.map(([x, y]) => `${round(x)} ${round(y)}`).join('L')}Z`
}

function disc(r: number): string {
  return `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0Z`
}

function cross(arm: number, half: number): string {
  return `M${-half} ${-arm}H${half}V${-half}H${arm}V${half}H${half}V${arm}H${-half}V${half}H${-arm}V${-half}H${-half}Z`
}

function starPoints(points: number, outer: number, inner: number): [number, number][] {
  return Array.from({ length: 2 * points }, (_, i) => {
    const radius = i % 2 === 0 ? outer : inner
    const angle = (Math.PI * i) / points - Math.PI / 2
    return [radius * Math.cos(angle), radius * Math.sin(angle)]
  })
}
