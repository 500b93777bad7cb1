/** Writes the folder of a made-up run in the real formats, for tests of the report. Deterministic. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { GalleryLine, MetricsLine } from '../../actors/run-files.ts'
import { configToYaml, loadConfig } from '../../configs/load.ts'
import { writeImages } from '../../runners/world/dataset.ts'

const STEPS = 60
const PICTURES = 24
const TYPES = ['color_of', 'shape_of', 'count_all', 'exists', 'relation', 'size']

export interface FixtureOptions {
  /** Text put into questions, answers and names, for example markup. */
  readonly text?: string
  readonly alarms?: boolean
}

export async function writeRunFolder(dir: string, { text = '', alarms = false }: FixtureOptions = {}): Promise<void> {
  const pictures = join(dir, 'gallery')
  await mkdir(pictures, { recursive: true })
  await writeImages(pictures, { count: PICTURES, seed: 1, domain: 'shifted' })
  await writeFile(join(dir, 'config.yaml'), configToYaml(loadConfig({ sets: ['run=fixture', 'seed=1'] })))
  const alarm: MetricsLine[] = alarms
    ? [
        {
          event: 'alarm',
          at: time(41),
          step: 41,
          name: 'collusion',
          message: `agreement 0.96 is over 0.95 ${text}`,
          value: 0.96,
        },
      ]
    : []
  const metrics = [
    ...evals(0),
    ...Array.from({ length: STEPS }, (_, s) => stepLines(s + 1)).flat(),
    ...alarm,
    ...evals(STEPS),
  ]
  await writeFile(join(dir, 'metrics.jsonl'), metrics.map((line) => `${JSON.stringify(line)}\n`).join(''))
  const gallery = Array.from({ length: STEPS / 5 }, (_, i) => galleryLines(1 + i * 5, text)).flat()
  await writeFile(join(dir, 'gallery.jsonl'), gallery.map((line) => `${JSON.stringify(line)}\n`).join(''))
}

const time = (second: number): string => new Date(Date.UTC(2026, 0, 5, 9, 0, second)).toISOString()
/** In [-1, 1], the same for the same arguments. */
const noise = (step: number, salt: number): number =>
  Math.sin(step * 12.9898 + salt * 78.233) * Math.cos(step * 3.7 + salt)

function stepLines(step: number): MetricsLine[] {
  const t = step / STEPS
  const line: MetricsLine = {
    event: 'step',
    at: time(step * 6),
    step,
    weights: step,
    groups: [],
    seconds: 5.5 + noise(step, 1),
    metrics: {
      'questioner/reward': 0.35 + 0.2 * t + 0.05 * noise(step, 2),
      'reasoner/reward': 0.5 + 0.25 * t + 0.06 * noise(step, 3),
      'questioner/frac_reward_zero_std': 0.1 + 0.02 * noise(step, 11),
      'reasoner/frac_reward_zero_std': 0.3 + 0.05 * noise(step, 12),
      'reasoner/agreement': 0.52 + 0.2 * t + 0.03 * noise(step, 4),
      'reasoner/majority_share': 0.66 + 0.16 * t + 0.03 * noise(step, 5),
      'filter/keep_rate': 0.42 - 0.1 * t + 0.04 * noise(step, 6),
      'reasoner/none_rate': 0.03 * (1 - t) + 0.005 * noise(step, 7) + 0.006,
      'questioner/valid_rate': 0.97 + 0.02 * t + 0.003 * noise(step, 14),
      'reasoner/valid_rate': 1,
      'questioner/type_entropy': 0.95 - 0.05 * t + 0.02 * noise(step, 8),
      'questioner/distinct': 0.71 + 0.03 * noise(step, 9),
      grad_norm: 0.9 - 0.3 * t + 0.15 * noise(step, 10),
      lag: 0,
      tokens_per_second: 8100 + 400 * noise(step, 13),
    },
  }
  return step % 10 === 0 && step < STEPS ? [line, evalLine('held-out', step, true, 400)] : [line]
}

function evals(weights: number): MetricsLine[] {
  return [
    evalLine('held-out', weights, false, 3800),
    evalLine('held-out', weights, true, 400),
    evalLine('clean', weights, false, 1900),
  ]
}

function evalLine(set: string, weights: number, probe: boolean, n: number): MetricsLine {
  const base = set === 'clean' ? 0.84 : 0.58
  const gain = (set === 'clean' ? -0.004 : 0.081) * Math.sqrt(weights / STEPS)
  const score = (shift: number) => ({
    mean1: base + gain + shift,
    greedy: base + 0.045 + 0.6 * gain + shift,
    maj: base + 0.04 + 0.7 * gain + shift,
  })
  return {
    event: 'eval',
    at: time(weights * 6 + 3),
    weights,
    set,
    n,
    ...score(probe ? 0.004 * noise(weights, 20) : 0),
    byType: Object.fromEntries(
      TYPES.map((type, i) => [
        type,
        { n: n / TYPES.length, ...score(0.22 * noise(i, 21) + (weights / STEPS) * 0.05 * noise(i, 22)) },
      ]),
    ),
    probe,
  }
}

const ANSWERS = ['red', 'teal', 'circle', 'two', 'yes', 'none']

function galleryLines(step: number, text: string): GalleryLine[] {
  return Array.from({ length: 8 }, (_, i) => {
    const pick = (salt: number, from: readonly string[]) =>
      from[Math.floor(Math.abs(noise(step + i, salt)) * from.length) % from.length]!
    const silver = pick(1, ANSWERS)
    const malformed = i === 7
    const right = 3 + (Math.floor(Math.abs(noise(step, i + 3)) * 9) % 6)
    const agrees = i !== 3
    const majority = agrees
      ? silver
      : pick(
          2,
          ANSWERS.filter((a) => a !== silver),
        )
    const picture = (step + i) % PICTURES
    return {
      step,
      group: `s${step}-${i}`,
      weights: step - 1,
      name: `${String(picture).padStart(6, '0')}.png${text}`,
      picture: `gallery/${String(picture).padStart(6, '0')}.png`,
      question: malformed
        ? `what color what color the ${text}`
        : `what color is the ${pick(4, ['circle', 'star', 'cross', 'square'])}? ${text}`.trim(),
      silver: malformed ? '' : silver,
      type: TYPES[i % TYPES.length]!,
      malformed: malformed ? 'no question mark' : null,
      answers: malformed
        ? []
        : [
            { text: `${majority}${text}`, count: right, reward: agrees ? 1 : 0 },
            ...(right < 8
              ? [
                  {
                    text: pick(
                      5,
                      ANSWERS.filter((a) => a !== majority),
                    ),
                    count: 8 - right,
                    reward: 0,
                  },
                ]
              : []),
          ],
      questioner: malformed
        ? { reward: -1, parts: {} }
        : { reward: agrees ? 0.62 : 0, parts: { difficulty: 0.375, diversity: 0.245, gate: agrees ? 1 : 0 } },
      reasoner: malformed
        ? null
        : {
            keep: agrees,
            dropped: agrees ? null : 'the silver answer is not the majority answer',
            agreement: agrees ? right / 8 : 0,
            majority,
            share: right / 8,
          },
    }
  })
}
