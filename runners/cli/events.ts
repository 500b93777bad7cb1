/**
 * What a run of `evolve` tells its terminal: plain data, one object each. With `--json` they are the lines on stdout,
 * the last one is `done`.
 */

export interface Accuracy {
  readonly mean1: number
  readonly greedy: number
  readonly maj: number
}

/** One question with its answers, for people to look at. */
export interface SampleQuestion {
  readonly image: string
  readonly question: string
  readonly silver: string
  /** Distinct answers, most frequent first; null = no answer could be read. */
  readonly answers: readonly { readonly text: string | null; readonly count: number }[]
  readonly agreement: number
}

export interface StepEvent {
  readonly event: 'step'
  /** The first one is 1. */
  readonly step: number
  readonly steps: number
  /** Version of the weights after the step. */
  readonly version: number
  readonly seconds: number
  /** As in the log's `step` event. */
  readonly metrics: Readonly<Record<string, number | null>>
}

export type EvolveEvent =
  | {
      readonly event: 'start'
      readonly run: string
      readonly out: string
      readonly model: string
      readonly device: string
      readonly recipe: string
      readonly seed: number
      readonly steps: number
      /** Steps that were done before: > 0 when resuming. */
      readonly from: number
    }
  | {
      readonly event: 'join'
      /** What to type on another machine. */
      readonly command: string
      /** What must be copied there first. */
      readonly files: readonly string[]
    }
  | {
      readonly event: 'images'
      readonly source: string
      readonly used: number
      readonly skipped: readonly { readonly file: string; readonly reason: string }[]
    }
  | ({
      readonly event: 'eval'
      readonly set: string
      readonly version: number
      readonly n: number
      /** True for the small measurement during a run. */
      readonly probe: boolean
    } & Accuracy)
  | StepEvent
  | ({ readonly event: 'sample'; readonly step: number } & SampleQuestion)
  | {
      readonly event: 'alarm'
      readonly step: number
      readonly name: string
      readonly message: string
      readonly value: number
    }
  | { readonly event: 'note'; readonly message: string }
  | {
      readonly event: 'done'
      readonly run: string
      /** The last one, or the best one of a run that an alarm ended. */
      readonly version: number
      /** Held-out accuracy of the base; null without a held-out set. */
      readonly before: Accuracy | null
      readonly after: Accuracy | null
      /** The same on the second held-out set, of the domain that the model was trained on. */
      readonly clean: { readonly before: Accuracy; readonly after: Accuracy } | null
      /** Steps that were done. */
      readonly steps: number
      readonly seconds: number
      readonly out: string
    }
