/**
 * Advantages of groups, with the semantics of TRL's GRPOTrainer: rewards of several functions, missing rewards,
 * scaling per group, per batch or not at all. Double precision throughout.
 */

export interface AdvantageConfig {
  /** Divide by the standard deviation of the group, of the batch, or not (Dr. GRPO). */
  readonly scale_rewards: 'group' | 'batch' | 'none'
  /** Weighted sum first, or every reward function normalised in its group first (GDPO). */
  readonly multi_objective_aggregation: 'sum_then_normalize' | 'normalize_then_sum'
}

/** One reward function: its name in the metrics and its weight in the sum. */
export interface RewardFunction {
  readonly name: string
  readonly weight: number
}

export interface Advantages {
  /** Same nesting as the rewards; 0 for a completion without any reward. */
  readonly advantages_P_G: readonly (readonly number[])[]
  /** `rewards/NAME/mean`, `rewards/NAME/std`, `reward`, `reward_std`, `frac_reward_zero_std`; NaN where undefined. */
  readonly metrics: Readonly<Record<string, number>>
}

const EPSILON = 1e-4
/** torch.isclose(std, 0). */
const ZERO_STD = 1e-8

interface Normalised {
  readonly advantages_P_G: number[][]
  /** Standard deviation that the scaling saw, one per group. */
  readonly std_P: number[]
}

/**
 * Advantages of groups `rewards_P_G_F`: P prompts × completions of the prompt × reward functions. NaN = the function
 * gave no reward. Groups may differ in size; a group of one has standard deviation 0, hence advantage 0.
 *
 * @throws RangeError when a row does not have one reward per function, or a group or the batch is empty.
 */
export function groupAdvantages(
  rewards_P_G_F: readonly (readonly (readonly number[])[])[],
  functions: readonly RewardFunction[],
  config: AdvantageConfig,
): Advantages {
  checkShape(rewards_P_G_F, functions)
  const weights_F = functions.map((f) => f.weight)
  const totals_P_G = rewards_P_G_F.map((group) => group.map((row) => weightedSum(row, row, weights_F)))
  const { advantages_P_G, std_P } =
    config.multi_objective_aggregation === 'sum_then_normalize'
      ? normaliseSums(totals_P_G, config.scale_rewards)
      : sumNormalised(rewards_P_G_F, weights_F)
  return {
    advantages_P_G: advantages_P_G.map((group) => group.map((a) => (Number.isNaN(a) ? 0 : a))),
    metrics: rewardMetrics(rewards_P_G_F, functions, totals_P_G, std_P),
  }
}

function normaliseSums(totals_P_G: number[][], scale: AdvantageConfig['scale_rewards']): Normalised {
  const batch = totals_P_G.flat()
  const std_P = totals_P_G.map((group) => {
    const values = scale === 'batch' ? batch : group
    return values.length > 1 ? nanStd(values) : 0
  })
  const advantages_P_G = totals_P_G.map((group, p) => {
    const mean = nanMean(group)
    const divisor = scale === 'none' ? 1 : std_P[p]! + EPSILON
    return group.map((reward) => (reward - mean) / divisor)
  })
  return { advantages_P_G, std_P }
}

function sumNormalised(rewards_P_G_F: readonly (readonly (readonly number[])[])[], weights_F: number[]): Normalised {
  const sums_P_G = rewards_P_G_F.map((group) => {
    const columns_F = weights_F.map((_, f) => group.map((row) => row[f]!))
    const mean_F = columns_F.map(nanMean)
    const std_F = columns_F.map((column) => (column.length > 1 ? nanStd(column) : 0))
    return group.map((row) => {
      const scaled_F = row.map((reward, f) => (reward - mean_F[f]!) / (std_F[f]! + EPSILON))
      return weightedSum(scaled_F, row, weights_F)
    })
  })
  const batch = sums_P_G.flat()
  const mean = nanMean(batch)
  const std = batch.length > 1 ? nanStd(batch) : 0
  return {
    advantages_P_G: sums_P_G.map((group) => group.map((sum) => (sum - mean) / (std + EPSILON))),
    std_P: sums_P_G.map(() => std),
  }
}

function rewardMetrics(
  rewards_P_G_F: readonly (readonly (readonly number[])[])[],
  functions: readonly RewardFunction[],
  totals_P_G: number[][],
  std_P: number[],
): Record<string, number> {
  const rows = rewards_P_G_F.flat()
  const metrics: Record<string, number> = {}
  functions.forEach(({ name }, f) => {
    const column = rows.map((row) => row[f]!)
    metrics[`rewards/${name}/mean`] = nanMean(column)
    metrics[`rewards/${name}/std`] = nanStd(column)
  })
  const totals = totals_P_G.flat()
  metrics.reward = nanMean(totals)
  metrics.reward_std = nanStd(totals)
  // Counted in completions, not in groups: TRL repeats a group's deviation for each of its rows.
  const zero = totals_P_G.reduce((sum, group, p) => sum + (Math.abs(std_P[p]!) <= ZERO_STD ? group.length : 0), 0)
  metrics.frac_reward_zero_std = zero / totals.length
  return metrics
}

/** Sum over the functions that gave a reward; NaN when none of the original rewards exists. */
function weightedSum(values_F: readonly number[], rewards_F: readonly number[], weights_F: readonly number[]): number {
  if (rewards_F.every(Number.isNaN)) return NaN
  return values_F.reduce((sum, value, f) => (Number.isNaN(value) ? sum : sum + value * weights_F[f]!), 0)
}

function nanMean(values: readonly number[]): number {
  const present = values.filter((v) => !Number.isNaN(v))
  return present.reduce((a, b) => a + b, 0) / present.length
}

/** Sample standard deviation (Bessel); NaN for fewer than two values. */
function nanStd(values: readonly number[]): number {
  const present = values.filter((v) => !Number.isNaN(v))
  if (present.length < 2) return NaN
  const mean = nanMean(present)
  return Math.sqrt(present.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (present.length - 1))
}

function checkShape(
  rewards_P_G_F: readonly (readonly (readonly number[])[])[],
  functions: readonly RewardFunction[],
): void {
  if (rewards_P_G_F.length === 0) throw new RangeError('no group to compute advantages for')
  rewards_P_G_F.forEach((group, p) => {
    if (group.length === 0) throw new RangeError(`group ${p} has no completion`)
    group.forEach((row, g) => {
      if (row.length === functions.length) return
      throw new RangeError(`completion ${g} of group ${p} has ${row.length} rewards for ${functions.length} functions`)
    })
  })
}
