/** Which curves the page draws, and from what. */
import type { EvalLine, ReportData, StepLine } from './data.ts'

export interface Series {
  readonly label: string
  /** Name of a colour of page.css. */
  readonly color: 'questioner' | 'reasoner' | 'good' | 'third' | 'muted'
  readonly y: readonly (number | null)[]
}

export interface Chart {
  readonly title: string
  readonly about: string
  readonly format: 'percent' | 'number'
  /** Steps: 0 is the base. */
  readonly x: readonly number[]
  readonly series: readonly Series[]
}

interface Plan {
  readonly title: string
  readonly about: string
  readonly format: Chart['format']
  /** `[metric of a step, label, colour]`; a series without values is left out, a chart without series too. */
  readonly series: readonly (readonly [metric: string, label: string, color: Series['color']])[]
}

const PLANS: readonly Plan[] = [
  {
    title: 'Rewards',
    about: 'Mean of each role. Rewards alone never reveal a collapse: read them with the accuracy.',
    format: 'number',
    series: [
      ['questioner/reward', 'Questioner', 'questioner'],
      ['reasoner/reward', 'Reasoner', 'reasoner'],
    ],
  },
  {
    title: 'Agreement',
    about: 'Answers that equal the silver answer, and the most frequent answer. Near 100 %: lock-in.',
    format: 'percent',
    series: [
      ['reasoner/agreement', 'with silver', 'reasoner'],
      ['reasoner/majority_share', 'majority', 'questioner'],
    ],
  },
  {
    title: 'Kept groups',
    about: 'Share of questions whose answers were trained, and share of answers like "none".',
    format: 'percent',
    series: [
      ['filter/keep_rate', 'kept', 'good'],
      ['reasoner/none_rate', 'none', 'muted'],
    ],
  },
  {
    title: 'Variety of questions',
    about: 'Distinct questions, and entropy of their types (100 %: all types of step 1 equally often).',
    format: 'percent',
    series: [
      ['questioner/type_entropy', 'types', 'questioner'],
      ['questioner/distinct', 'distinct', 'third'],
    ],
  },
  {
    title: 'Format',
    about: 'Share of completions that hold a question, or an answer.',
    format: 'percent',
    series: [
      ['questioner/valid_rate', 'Questioner', 'questioner'],
      ['reasoner/valid_rate', 'Reasoner', 'reasoner'],
    ],
  },
  {
    title: 'Gradient norm',
    about: 'Global norm before clipping.',
    format: 'number',
    series: [['grad_norm', 'norm', 'third']],
  },
  {
    title: 'Sampler and policy',
    about: 'Mean difference of their logprobs of a token in nats, where samples come from rounded weights.',
    format: 'number',
    series: [
      ['questioner/sampling/sampling_logp_difference/mean', 'Questioner', 'questioner'],
      ['reasoner/sampling/sampling_logp_difference/mean', 'Reasoner', 'reasoner'],
    ],
  },
  {
    title: 'Lag',
    about: 'Versions between the weights that sampled and the weights that were trained.',
    format: 'number',
    series: [['lag', 'lag', 'third']],
  },
  {
    title: 'Seconds per step',
    about: 'Sampling, judging and updating.',
    format: 'number',
    series: [['seconds', 'seconds', 'good']],
  },
  {
    title: 'Speed',
    about: 'Tokens that both roles sampled per second of a step.',
    format: 'number',
    series: [['tokens_per_second', 'tokens/s', 'good']],
  },
]

/** `seconds` is a figure of the step itself. */
const valueOf = (step: StepLine, metric: string): number | null =>
  metric === 'seconds' ? step.seconds : (step.metrics[metric] ?? null)

/** The curves that this run has values for, the most telling first. */
export function mainCharts(data: ReportData): Chart[] {
  return [...accuracyCharts(data.evals), ...PLANS.map((plan) => stepChart(data, plan)).filter((c) => c !== null)]
}

/** Every other metric of the steps, one chart each. */
export function otherCharts(data: ReportData): Chart[] {
  const shown = new Set(PLANS.flatMap((plan) => plan.series.map(([metric]) => metric)))
  const names = new Set(data.steps.flatMap((step) => Object.keys(step.metrics)))
  return [...names]
    .filter((name) => !shown.has(name))
    .sort()
    .map((name) => stepChart(data, { title: name, about: '', format: 'number', series: [[name, name, 'third']] }))
    .filter((chart) => chart !== null)
}

function stepChart({ steps }: ReportData, { series, ...plan }: Plan): Chart | null {
  const drawn = series
    .map(([metric, label, color]) => ({ label, color, y: steps.map((step) => valueOf(step, metric)) }))
    .filter(({ y }) => y.some((value) => value !== null))
  return drawn.length === 0 ? null : { ...plan, x: steps.map((step) => step.step), series: drawn }
}

/** One chart per held-out set: of the probes, which are comparable with each other, else of the whole measurements. */
function accuracyCharts(evals: readonly EvalLine[]): Chart[] {
  return [...new Set(evals.map((e) => e.set))].flatMap((set) => {
    const ofSet = evals.filter((e) => e.set === set)
    const probes = ofSet.filter((e) => e.probe)
    const lines = probes.length > 1 ? probes : ofSet.filter((e) => !e.probe)
    const of = (key: 'mean1' | 'greedy' | 'maj') => lines.map((line) => line[key])
    const chart: Chart = {
      title: `Accuracy: ${set}`,
      about: 'On held-out questions with known answers, which no reward ever sees.',
      format: 'percent',
      x: lines.map((line) => line.weights),
      series: [
        { label: 'mean@1', color: 'good', y: of('mean1') },
        { label: 'greedy', color: 'reasoner', y: of('greedy') },
        { label: 'maj', color: 'questioner', y: of('maj') },
      ],
    }
    return lines.length < 2 ? [] : [chart]
  })
}
