/** Live progress of a run: a block that redraws itself on a terminal, plain lines elsewhere. Fed with plain data. */
import type { Accuracy, EvolveEvent, SampleQuestion, StepEvent } from './events.ts'

/** Where progress goes; `columns` undefined = not a terminal. */
export interface Screen {
  write(text: string): void
  readonly columns: number | undefined
}

export interface Progress {
  show(event: EvolveEvent): void
  /** Removes the live block, so that what follows starts on a clean line. */
  close(): void
}

/** Plain output repeats a sample question this rarely; a terminal shows the newest one in place. */
const STEPS_BETWEEN_SAMPLES = 10
/** Weight of the newest step in the smoothed seconds per step. */
const SMOOTHING = 0.3

export function createProgress(screen: Screen): Progress {
  const state: State = { block: 0, last: null, sample: null, sampleStep: null, pace: null, total: 0 }
  const live = screen.columns !== undefined
  const erase = (): void => {
    if (state.block > 0) screen.write(`\x1b[${state.block}A\x1b[0J`)
    state.block = 0
  }
  const print = (lines: readonly string[]): void => {
    for (const line of lines) screen.write(`${line}\n`)
  }
  return {
    show(event) {
      erase()
      print(update(state, event, live))
      if (!live || state.last === null || event.event === 'done') return
      const block = [stepLine(state.last, state.pace), ...bar(state.last, screen.columns), ...sampleLines(state.sample)]
      print(block.map((line) => fit(line, screen.columns)))
      state.block = block.length
    },
    close: erase,
  }
}

interface State {
  /** Lines of the live block on the screen. */
  block: number
  last: StepEvent | null
  sample: SampleQuestion | null
  sampleStep: number | null
  /** Smoothed seconds per step. */
  pace: number | null
  total: number
}

/** Takes the event in; returns the lines that stay on the screen. */
function update(state: State, event: EvolveEvent, live: boolean): readonly string[] {
  switch (event.event) {
    case 'start':
      return [
        `${event.from > 0 ? `run ${event.run} goes on from step ${event.from}` : `run ${event.run}`} in ${event.out}`,
        `model ${event.model} on ${event.device} · recipe ${event.recipe} · seed ${event.seed} · ${event.steps} steps`,
      ]
    case 'join':
      return [
        `others join with: ${event.command}`,
        ...(event.files.length === 0 ? [] : [`having copied there: ${event.files.join(', ')}`]),
      ]
    case 'images':
      return imageLines(event.source, event.used, event.skipped)
    case 'eval':
      return [
        `${event.probe ? 'probe of' : 'accuracy on'} ${event.set} · version ${event.version} · ${accuracy(event)} (n=${event.n})`,
      ]
    case 'step':
      state.pace = state.pace === null ? event.seconds : (1 - SMOOTHING) * state.pace + SMOOTHING * event.seconds
      state.last = event
      return live ? [] : [stepLine(event, state.pace)]
    case 'sample': {
      state.sample = event
      const due = state.sampleStep === null || event.step - state.sampleStep >= STEPS_BETWEEN_SAMPLES
      if (live || !due) return []
      state.sampleStep = event.step
      return sampleLines(event)
    }
    case 'alarm':
      return [`ALARM ${event.name} at step ${event.step}: ${event.message}`]
    case 'note':
      return [event.message]
    case 'done':
      return summary(event)
  }
}

const SKIPPED_SHOWN = 5

function imageLines(
  source: string,
  used: number,
  skipped: readonly { readonly file: string; readonly reason: string }[],
): string[] {
  const named = skipped.slice(0, SKIPPED_SHOWN).map(({ file, reason }) => `  skipped ${file}: ${reason}`)
  const rest =
    skipped.length > SKIPPED_SHOWN ? [`  … and ${skipped.length - SKIPPED_SHOWN} more; visplay.log has all`] : []
  const count = skipped.length === 0 ? '' : `, ${skipped.length} skipped`
  return [`images ${used} from ${source}${count}`, ...named, ...rest]
}

const percent = (x: number): string => `${(100 * x).toFixed(1)} %`
const accuracy = (a: Accuracy): string =>
  `mean@1 ${percent(a.mean1)} · greedy ${percent(a.greedy)} · maj ${percent(a.maj)}`

/** `step 12/60  Q +0.31  R +0.55  agree 62 %  kept 41 %  lag 0  8.1k tok/s  ETA 1:20`; values that a run lacks are left out. */
export function stepLine({ step, steps, metrics }: StepEvent, pace: number | null): string {
  const part = (name: string, key: string, format: (x: number) => string): string[] => {
    const value = metrics[key]
    return typeof value === 'number' && Number.isFinite(value) ? [`${name} ${format(value)}`.trim()] : []
  }
  return [
    `step ${String(step).padStart(String(steps).length)}/${steps}`,
    ...part('Q', 'questioner/reward', signed),
    ...part('R', 'reasoner/reward', signed),
    ...part('agree', 'reasoner/agreement', wholePercent),
    ...part('kept', 'filter/keep_rate', wholePercent),
    ...part('lag', 'lag', (x) => x.toFixed(Number.isInteger(x) ? 0 : 1)),
    ...part('', 'tokens_per_second', (x) => `${compact(x)} tok/s`),
    ...(pace === null || step >= steps ? [] : [`ETA ${clock(pace * (steps - step))}`]),
  ].join('  ')
}

const signed = (x: number): string => `${x < 0 ? '' : '+'}${x.toFixed(2)}`
const wholePercent = (x: number): string => `${Math.round(100 * x)} %`
const compact = (x: number): string => (x < 1000 ? x.toFixed(0) : `${(x / 1000).toFixed(x < 10_000 ? 1 : 0)}k`)

/** `0:42`, `12:05`, `3:07:30`. */
export function clock(seconds: number): string {
  const s = Math.max(0, Math.round(seconds))
  const two = (x: number) => String(x).padStart(2, '0')
  const [h, m] = [Math.floor(s / 3600), Math.floor((s % 3600) / 60)]
  return h > 0 ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`
}

function bar({ step, steps }: StepEvent, columns: number | undefined): string[] {
  const width = Math.min(60, (columns ?? 80) - 2)
  const done = steps === 0 ? width : Math.round((width * step) / steps)
  return [`${'━'.repeat(done)}${'─'.repeat(Math.max(0, width - done))}`]
}

function sampleLines(sample: SampleQuestion | null): string[] {
  if (sample === null) return []
  const answers = sample.answers.map(
    ({ text, count }) => `${text === null ? '(no answer)' : printable(text)} ×${count}`,
  )
  return [
    `  ${sample.image}: ${printable(sample.question)} [silver: ${printable(sample.silver)}]`,
    `    ${answers.join(' · ')}  (${wholePercent(sample.agreement)} agree)`,
  ]
}

/** Model text on a terminal: no control characters, so that a completion cannot move the cursor. */
const printable = (text: string): string => text.replaceAll(/[\u0000-\u001f\u007f-\u009f]+/g, ' ').trim()

function fit(line: string, columns: number | undefined): string {
  return columns === undefined || line.length < columns ? line : `${line.slice(0, Math.max(0, columns - 2))}…`
}

function summary(event: Extract<EvolveEvent, { event: 'done' }>): string[] {
  const { before, after, clean } = event
  return [
    `done: ${event.steps} steps, version ${event.version}, ${clock(event.seconds)}`,
    ...(before === null || after === null ? [] : table('held-out', before, after)),
    ...(clean === null ? [] : table('clean', clean.before, clean.after)),
    `results in ${event.out} (open report.html)`,
  ]
}

function table(name: string, before: Accuracy, after: Accuracy): string[] {
  const row = (label: string, cell: (key: keyof Accuracy) => string): string =>
    `  ${label.padEnd(10)}${(['mean1', 'greedy', 'maj'] as const).map((key) => cell(key).padStart(10)).join('')}`
  return [
    row(name, (key) => ({ mean1: 'mean@1', greedy: 'greedy', maj: 'maj' })[key]),
    row('before', (key) => percent(before[key])),
    row('after', (key) => percent(after[key])),
    row('gain', (key) => points(after[key] - before[key])),
  ]
}

const points = (x: number): string => `${x < 0 ? '−' : '+'}${Math.abs(100 * x).toFixed(1)}`
