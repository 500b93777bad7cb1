/** The precision of a run's rollouts, decided once by the process that starts it, so that all who join use the same. */
import type { Config } from '../../configs/schema.ts'
import { choosePrecision } from '../../models/layers/choose-precision.ts'
import type { Precision } from '../../models/layers/precision.ts'
import { familyOf } from '../../models/vlm/registry.ts'

/** Distinct completions of one decoding step beyond which nothing changes any more. */
const MOST_ROWS = 128

/** The configuration with `model.rollouts` decided; measures where it is `auto`, and says what it chose and why. */
export async function decideRollouts<C extends Config>(config: C, onNote: (message: string) => void): Promise<C> {
  if (config.model.rollouts !== 'auto') return config
  const { precision, why } = await decide(config)
  onNote(`rollouts in ${precision}: ${why} (model.rollouts)`)
  return { ...config, model: { ...config.model, rollouts: precision } }
}

async function decide({ model, groups }: Config): Promise<{ precision: Precision; why: string }> {
  const { train, device, dir, threads } = model
  if (train === 'full') return { precision: 'fp32', why: 'every weight is trained' }
  if (device !== 'auto' && device !== 'cpu')
    return { precision: 'fp32', why: `8 bits are for the CPU, and the device is ${device}` }
  const { architecture } = await (await familyOf(dir)).open(dir)
  const rows = Math.min(MOST_ROWS, groups.images * groups.questions * groups.answers)
  const { precision, milliseconds, error } = await choosePrecision(architecture.text, rows, { threads })
  const times = `${digits(milliseconds.int8)} ms in 8 bits, ${digits(milliseconds.fp32)} ms in float32`
  const wrong = precision === 'fp32' && milliseconds.int8 < milliseconds.fp32 ? `, error ${digits(100 * error)} %` : ''
  return { precision, why: `the layers of a decoding step of ${rows} samples take ${times}${wrong}` }
}

const digits = (x: number): number => Number(x.toPrecision(2))
