import { describe, expect, it } from 'vitest'
import { createAlarms } from '../actors/alarms.ts'
import type { Alarm, AlarmMetrics } from '../actors/alarms.ts'

/**
 * Curves of a 1.2 M parameter PyTorch prototype of the tiny world (64×64 scenes of shapes, shifted domain), seed 0
 * unless noted: step, held-out mean1 and greedy, then means over the steps since the previous row of the share of
 * answers equal to silver, majority share, kept groups, type entropy, distinct questions, well-formed questions,
 * questions about absent objects (standing in for "none"-like answers, which were not recorded) and gradient norm.
 */
type Row = readonly [number, number, number, ...number[]]

/** silver-reference, lr 2e-4. */
const COLLUSION: readonly Row[] = [
  [0, 0.5808, 0.6334],
  [20, 0.342, 0.3423, 0.687, 0.799, 0.601, 0.897, 0.42, 0.991, 0.233, 2.827],
  [40, 0.2542, 0.2565, 0.674, 0.873, 0.514, 0.627, 0.441, 0.991, 0.365, 1.482],
  [60, 0.0831, 0.0841, 0.754, 0.902, 0.345, 0.384, 0.383, 0.945, 0.102, 2.488],
  [80, 0.0373, 0.0373, 0.951, 0.988, 0.049, 0.352, 0.361, 0.986, 0.042, 2.213],
]

/** silver-reference, lr 3e-5. */
const DIFFICULT_BECOMES_WRONG: readonly Row[] = [
  [0, 0.5808, 0.6334],
  [30, 0.6193, 0.6638, 0.71, 0.814, 0.543, 0.965, 0.425, 0.998, 0.194, 3.458],
  [60, 0.6278, 0.6733, 0.7, 0.813, 0.558, 0.947, 0.441, 0.995, 0.195, 3.198],
  [90, 0.6238, 0.6594, 0.704, 0.816, 0.571, 0.914, 0.469, 0.995, 0.237, 3.081],
  [120, 0.5932, 0.6057, 0.749, 0.85, 0.527, 0.858, 0.529, 0.992, 0.267, 3.186],
]

/** majority-vote, lr 2e-4. */
const LOCK_IN: readonly Row[] = [
  [0, 0.5808, 0.6334],
  [20, 0.3239, 0.3284, 0.681, 0.82, 0.585, 0.87, 0.419, 0.982, 0.191, 3.576],
  [40, 0.1678, 0.1655, 0.741, 0.944, 0.235, 0.456, 0.27, 0.962, 0.044, 3.068],
  [60, 0.179, 0.1785, 0.857, 0.984, 0.077, 0.259, 0.423, 0.981, 0.0, 1.933],
  [80, 0.1893, 0.1872, 0.793, 0.989, 0.052, 0.431, 0.491, 0.986, 0.0, 1.913],
]

/** consensus, lr 2e-5: without skipping "none", then skipping any "none" with seeds 0, 1, 2. */
const HEALTHY: readonly (readonly Row[])[] = [
  [
    [0, 0.5808, 0.6334],
    [20, 0.5943, 0.6395, 0.707, 0.812, 0.374, 0.964, 0.432, 0.995, 0.192, 2.638],
    [40, 0.6294, 0.6655, 0.727, 0.827, 0.359, 0.964, 0.448, 0.995, 0.175, 3.009],
    [60, 0.648, 0.6863, 0.741, 0.842, 0.338, 0.961, 0.451, 0.995, 0.17, 2.754],
    [80, 0.6485, 0.682, 0.779, 0.859, 0.334, 0.956, 0.46, 0.996, 0.161, 2.844],
    [100, 0.6445, 0.6742, 0.796, 0.874, 0.329, 0.952, 0.477, 0.995, 0.145, 2.819],
  ],
  [
    [0, 0.5825, 0.6282],
    [20, 0.5954, 0.6393, 0.707, 0.813, 0.308, 0.962, 0.431, 0.995, 0.191, 2.557],
    [40, 0.6184, 0.6598, 0.726, 0.831, 0.295, 0.96, 0.441, 0.995, 0.161, 2.827],
    [60, 0.6219, 0.6556, 0.759, 0.847, 0.301, 0.956, 0.435, 0.997, 0.164, 2.925],
  ],
  [
    [0, 0.5825, 0.6282],
    [20, 0.5985, 0.6444, 0.705, 0.812, 0.316, 0.967, 0.427, 0.997, 0.2, 2.802],
    [40, 0.6303, 0.6701, 0.731, 0.832, 0.282, 0.963, 0.447, 0.994, 0.167, 2.283],
    [60, 0.6376, 0.6701, 0.768, 0.858, 0.252, 0.95, 0.431, 0.995, 0.144, 2.661],
  ],
  [
    [0, 0.5825, 0.6282],
    [20, 0.6083, 0.653, 0.71, 0.815, 0.333, 0.964, 0.42, 0.996, 0.186, 2.858],
    [40, 0.6309, 0.6726, 0.753, 0.845, 0.281, 0.96, 0.441, 0.996, 0.185, 2.928],
    [60, 0.631, 0.6658, 0.764, 0.854, 0.286, 0.959, 0.447, 0.995, 0.146, 2.679],
  ],
]

const NAMES = [
  'reasoner/agreement',
  'reasoner/majority_share',
  'filter/keep_rate',
  'questioner/type_entropy',
  'questioner/distinct',
  'questioner/valid_rate',
  'reasoner/none_rate',
  'grad_norm',
]

/** Every step of a curve has its row's values; the probe runs at the last step of a row. */
function replay(rows: readonly Row[], config: unknown = {}): Alarm[] {
  const alarms = createAlarms(config)
  const [first, ...rest] = rows
  const raised = alarms.observe(0, { 'eval/mean1': first![1], 'eval/greedy': first![2] })
  let step = 0
  for (const [end, mean1, greedy, ...values] of rest) {
    const metrics: AlarmMetrics = Object.fromEntries(NAMES.map((name, i) => [name, values[i]!]))
    while (++step < end) raised.push(...alarms.observe(step, { ...metrics, 'eval/mean1': null }))
    raised.push(...alarms.observe(end, { ...metrics, 'eval/mean1': mean1, 'eval/greedy': greedy }))
  }
  return raised
}

const named = (alarms: readonly Alarm[]) => alarms.map((alarm) => alarm.name)

describe('collapses of the prototype', () => {
  it('collusion: the roles agree more while the probe falls', () => {
    const raised = replay(COLLUSION)
    const collusion = raised.find((alarm) => alarm.name === 'collusion')!
    expect(collusion.message).toMatch(
      /73.8 % of the answers equal .* \(68.7 % at the start\) while held-out greedy fell/,
    )
    // The probe warns at its first run, before the roles agree.
    expect(raised.find((alarm) => alarm.name === 'held-out-fall')!.step).toBe(20)
    expect(named(raised)).toEqual(expect.arrayContaining(['type-entropy-fall', 'few-kept-groups']))
  })

  it('difficult becomes wrong: agreement does not grow while the probe falls', () => {
    const raised = replay(DIFFICULT_BECOMES_WRONG)
    expect(raised.find((alarm) => alarm.name === 'difficult-becomes-wrong')?.step).toBe(120)
    expect(named(raised)).not.toContain('collusion')
  })

  it('majority lock-in: votes become unanimous and ever less is kept', () => {
    const raised = replay(LOCK_IN)
    expect(raised.find((alarm) => alarm.name === 'majority-lock-in')).toMatchObject({ step: 25, value: 0.944 })
    expect(named(raised)).toEqual(expect.arrayContaining(['distinct-fall', 'type-entropy-fall', 'none-drift']))
  })

  it('"none" drift: more questions about absent objects', () => {
    const drift = replay(DIFFICULT_BECOMES_WRONG).find((alarm) => alarm.name === 'none-drift')!
    expect(drift.message).toBe('"none"-like answers went from 19.4 % to 26.7 %')
  })

  it.each(HEALTHY.map((rows, i) => [i, rows] as const))('healthy run %i raises none', (_, rows) =>
    expect(replay(rows)).toEqual([]),
  )
})

describe('createAlarms', () => {
  const steady = (over: AlarmMetrics = {}): AlarmMetrics => ({ grad_norm: 2, 'questioner/valid_rate': 0.99, ...over })

  it('raises an alarm once until it clears', () => {
    const alarms = createAlarms({ clearAfter: 2 })
    const kept = [
      ...[9, 9, 9, 9, 9].map((x) => x / 10),
      ...new Array<number>(6).fill(0),
      ...new Array<number>(8).fill(0.9),
    ]
    const raised = [...kept, ...new Array<number>(6).fill(0)].flatMap((rate, step) =>
      alarms.observe(step, { 'filter/keep_rate': rate }),
    )
    expect(raised.map(({ name, step }) => [name, step])).toEqual([
      ['few-kept-groups', 9],
      ['few-kept-groups', 23],
    ])
  })

  it('sees a gradient that is not finite at once, and one that explodes', () => {
    expect(named(createAlarms().observe(0, { grad_norm: null }))).toEqual(['gradient'])
    expect(named(createAlarms().observe(0, { grad_norm: NaN }))).toEqual(['gradient'])
    const alarms = createAlarms()
    for (let step = 0; step < 10; step++) expect(alarms.observe(step, steady())).toEqual([])
    expect(alarms.observe(10, steady({ grad_norm: 50 }))).toMatchObject([{ name: 'gradient', value: 50, step: 10 }])
  })

  it('sees the format collapse', () => {
    const alarms = createAlarms()
    for (let step = 0; step < 10; step++) alarms.observe(step, steady())
    const raised = Array.from({ length: 5 }, (_, i) =>
      alarms.observe(10 + i, steady({ 'questioner/valid_rate': 0.3 })),
    ).flat()
    expect(named(raised)).toEqual(['format-collapse'])
  })

  it('says nothing where there is nothing to compare', () => {
    const alarms = createAlarms()
    expect(alarms.observe(0, {})).toEqual([])
    expect(alarms.observe(1, { 'reasoner/agreement': null, 'eval/mean1': null })).toEqual([])
  })

  it('takes other thresholds and refuses unknown ones', () => {
    expect(named(replay(HEALTHY[0]!, { probeFall: 0.01 }))).toContain('collusion')
    expect(() => createAlarms({ probefall: 0.1 })).toThrow('probefall')
  })
})
