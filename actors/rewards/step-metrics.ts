/** Metrics of a step that need no label: what the roles said and how the Judge saw it. */
import type { Completion, EventData } from '../../bus/messages.ts'
import { countVotes, NONE_WORDS } from './vote.ts'

export interface StepRecord {
  readonly questions: readonly EventData<'questions'>[]
  readonly answers: readonly EventData<'answers'>[]
  readonly verdicts: readonly EventData<'verdict'>[]
  /** Number of question types in the run's first step: the unit of the type entropy. null in the first step itself. */
  readonly typesAtStart: number | null
  readonly noneWords?: readonly string[]
}

/** By name, as TRL calls it, under the role it belongs to; null where nothing was there to measure. */
export type StepMetrics = Readonly<Record<string, number | null>>

/** Metrics of one step from its events; malformed questions count, groups that were never judged do not. */
export function stepMetrics(record: StepRecord): StepMetrics {
  return { ...questionMetrics(record), ...answerMetrics(record), ...verdictMetrics(record) }
}

function questionMetrics({ questions, typesAtStart }: StepRecord): StepMetrics {
  const all = questions.flatMap((event) => event.questions)
  const valid = all.filter((question) => question.malformed === null)
  const types = new Map<string, number>()
  for (const { type } of valid) types.set(type, (types.get(type) ?? 0) + 1)
  const distinct = new Set(valid.map((question) => question.question.toLowerCase()))
  return {
    'questioner/valid_rate': ratio(valid.length, all.length),
    'questioner/distinct': ratio(distinct.size, valid.length),
    'questioner/types': types.size,
    'questioner/type_entropy': normalisedEntropy([...types.values()], typesAtStart ?? types.size),
    ...lengthMetrics(
      'questioner',
      all.map((question) => question.completion),
    ),
  }
}

function answerMetrics({ answers, noneWords = NONE_WORDS }: StepRecord): StepMetrics {
  const parsed = answers.flatMap((event) => event.parsed)
  return {
    'reasoner/valid_rate': ratio(parsed.filter((answer) => answer !== null).length, parsed.length),
    'reasoner/none_rate': parsed.length === 0 ? null : countVotes(parsed, '', noneWords).none,
    ...lengthMetrics(
      'reasoner',
      answers.flatMap((event) => event.completions),
    ),
  }
}

function verdictMetrics({ questions, verdicts }: StepRecord): StepMetrics {
  const byGroup = new Map(verdicts.map((verdict) => [verdict.group, verdict.questioner.reward]))
  const questionerGroups = questions.map((event) =>
    event.questions.map((question) => byGroup.get(question.group)).filter((reward) => reward !== undefined),
  )
  const judged = verdicts.flatMap((verdict) => (verdict.reasoner === null ? [] : [verdict.reasoner]))
  const parts = [...new Set(verdicts.flatMap((verdict) => Object.keys(verdict.questioner.parts)))].sort()
  return {
    ...rewardMetrics('questioner', questionerGroups),
    ...Object.fromEntries(
      parts.map((part) => [
        `questioner/rewards/${part}/mean`,
        mean(verdicts.map((verdict) => verdict.questioner.parts[part]).filter((value) => value !== undefined)),
      ]),
    ),
    ...rewardMetrics(
      'reasoner',
      judged.map((group) => group.rewards),
    ),
    'reasoner/agreement': mean(judged.map((group) => group.agreement)),
    'reasoner/majority_share': mean(judged.map((group) => group.share)),
    // A group without variance teaches nothing, whatever the recipe says of it.
    'filter/keep_rate': ratio(
      judged.filter((group) => group.keep && (sampleStd(group.rewards) ?? 0) > ZERO_STD).length,
      judged.length,
    ),
  }
}

/** Rewards that differ by less are equal: TRL's torch.isclose to 0. */
const ZERO_STD = 1e-8

/** TRL's names: mean and standard deviation over the batch, share of groups whose rewards are all equal. */
function rewardMetrics(role: string, groups: readonly (readonly number[])[]): StepMetrics {
  const present = groups.filter((rewards_G) => rewards_G.length > 0)
  const all = present.flat()
  return {
    [`${role}/reward`]: mean(all),
    [`${role}/reward_std`]: sampleStd(all),
    [`${role}/frac_reward_zero_std`]: ratio(
      present.filter((rewards_G) => (sampleStd(rewards_G) ?? 0) <= ZERO_STD).length,
      present.length,
    ),
  }
}

/** TRL's names: lengths in tokens; `terminated` are those that ended by themselves, `clipped` the others. */
function lengthMetrics(role: string, completions: readonly Completion[]): StepMetrics {
  const statistics = (name: string, lengths: readonly number[]) => ({
    [`${role}/completions/mean_${name}`]: mean(lengths),
    [`${role}/completions/min_${name}`]: lengths.length === 0 ? null : lengths.reduce((a, b) => Math.min(a, b)),
    [`${role}/completions/max_${name}`]: lengths.length === 0 ? null : lengths.reduce((a, b) => Math.max(a, b)),
  })
  const terminated = completions.filter((completion) => completion.finished)
  return {
    ...statistics(
      'length',
      completions.map((completion) => completion.tokens.length),
    ),
    ...statistics(
      'terminated_length',
      terminated.map((completion) => completion.tokens.length),
    ),
    [`${role}/completions/clipped_ratio`]: ratio(completions.length - terminated.length, completions.length),
  }
}

/** Entropy of counts in nats over log(`types`), so that `types` equally frequent ones give 1; null for one type. */
function normalisedEntropy(counts: readonly number[], types: number): number | null {
  if (types < 2 || counts.length === 0) return null
  const total = counts.reduce((a, b) => a + b, 0)
  const nats = counts.reduce((sum, count) => sum - (count / total) * Math.log(count / total), 0)
  return nats / Math.log(types)
}

function ratio(part: number, whole: number): number | null {
  return whole === 0 ? null : part / whole
}

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((a, b) => a + b, 0) / values.length
}

/** With Bessel's correction, as torch.std; null for fewer than two values. */
function sampleStd(values: readonly number[]): number | null {
  const center = mean(values)
  if (center === null || values.length < 2) return null
  return Math.sqrt(values.reduce((sum, value) => sum + (value - center) ** 2, 0) / (values.length - 1))
}
