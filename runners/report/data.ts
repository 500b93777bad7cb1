/** What a report shows: plain data, read from the folder of a run. */
import type { GalleryLine, MetricsLine } from '../../actors/run-files.ts'

export type StepLine = Extract<MetricsLine, { event: 'step' }>
export type EvalLine = Extract<MetricsLine, { event: 'eval' }>
export type AlarmLine = Extract<MetricsLine, { event: 'alarm' }>
export type DeadLine = Extract<MetricsLine, { event: 'dead' }>

/** A question of the gallery; `picture` is a key of `pictures`, or null when the picture is lost. */
export type GalleryItem = Omit<GalleryLine, 'picture'> & { readonly picture: string | null }

/** First and last full measurement of one held-out set. */
export interface BeforeAfter {
  readonly set: string
  readonly before: EvalLine
  readonly after: EvalLine
}

export interface ReportData {
  readonly run: string
  /** `config.yaml`, without secrets. */
  readonly config: string
  /** Facts of the header, for example `model` → `models/tiny`. */
  readonly facts: Readonly<Record<string, string>>
  readonly steps: readonly StepLine[]
  readonly evals: readonly EvalLine[]
  readonly beforeAfter: readonly BeforeAfter[]
  readonly alarms: readonly AlarmLine[]
  readonly dead: readonly DeadLine[]
  readonly gallery: readonly GalleryItem[]
  /** Data URIs by picture. */
  readonly pictures: Readonly<Record<string, string>>
  /** Lines of the files that could not be read (a run that was killed may leave half a line), and pictures lost. */
  readonly unreadable: number
}
