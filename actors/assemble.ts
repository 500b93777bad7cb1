/** From a judged batch to an update: advantages, loss weights, micro-batches, and what is left out and why. Pure. */
import type { Completion, EventData } from '../bus/messages.ts'
import { groupAdvantages } from '../models/losses/advantages.ts'
import { fullGrpoConfig, type GrpoConfig } from '../models/losses/grpo-config.ts'
import { tokenWeights } from '../models/losses/normalization.ts'
import type { PolicyCompletion } from '../models/model.ts'
import { imageTaskId } from './ids.ts'
import type { MicroBatch } from './micro-batch.ts'
import type { StepBatch } from './step-book.ts'

export type Role = 'questioner' | 'reasoner'

export interface AssembleOptions {
  readonly loss: GrpoConfig
  /** Longest completion of each role in tokens: the normaliser of `dr_grpo`. */
  readonly maxTokens: Readonly<Record<Role, number>>
  readonly roleWeights: Readonly<Record<Role, number>>
  /** Images of one micro-batch. */
  readonly microBatchImages: number
  /** Versions that a group may be behind. */
  readonly maxLag: number
}

/** Part of an update that one model actor computes. */
export interface Part {
  /** Its groups in canonical order: by image, the questioner's group before those of its questions. */
  readonly groups: readonly string[]
  readonly batch: MicroBatch
}

export interface Assembled {
  readonly parts: readonly Part[]
  /** What is left out and why, besides groups whose verdict says `keep: false`. */
  readonly dropped: readonly { readonly group: string; readonly reason: string }[]
}

/** The verdict says that the group is not trained, and why: it need not be said again. */
const REFUSED = 'refused by the verdict'

/** The completions of one prompt with their rewards. */
interface RoleGroup {
  readonly id: string
  readonly index: number
  readonly image: string
  readonly prompt: string
  readonly completions: readonly Completion[]
  readonly rewards_G: readonly number[]
  /** Versions between the weights that sampled it and those that are updated. */
  readonly lag: number
  /** Its verdict says so. */
  readonly refused: boolean
}

/** One distinct completion of a group; `count` samples are the same. */
interface Leaf extends Omit<PolicyCompletion, 'weight' | 'count'> {
  readonly count: number
}

/**
 * The update of a step on top of version `head`. Advantages are normalised in each group; loss weights over all judged
 * completions of a role, left-out groups included, so that few good groups do not weigh more than many.
 */
export function assemble(batch: StepBatch, head: number, options: AssembleOptions): Assembled {
  const images = [...batch.images.values()].toSorted((a, b) => a.index - b.index)
  const groups: Record<Role, RoleGroup[]> = {
    questioner: images.map((image) => questionerGroup(batch, image, head)),
    reasoner: images.flatMap((image) => reasonerGroups(batch, image, head)),
  }
  const roles = [trainRole('questioner', groups, options), trainRole('reasoner', groups, options)]
  const trained = roles.flatMap((role) => role.trained).toSorted((a, b) => a.index - b.index || (a.id < b.id ? -1 : 1))
  return {
    parts: cut(trained, options),
    dropped: [...roles.flatMap((role) => role.dropped), ...deadOf(batch)],
  }
}

function questionerGroup(batch: StepBatch, image: EventData<'questions'>, head: number): RoleGroup {
  const judged = image.questions.filter((q) => batch.verdicts.has(q.group))
  return {
    id: imageTaskId(image.step, image.index),
    index: image.index,
    image: image.image,
    prompt: image.prompt,
    lag: head - image.weights,
    refused: false,
    completions: judged.map((q) => q.completion),
    rewards_G: judged.map((q) => batch.verdicts.get(q.group)!.questioner.reward),
  }
}

function reasonerGroups(batch: StepBatch, image: EventData<'questions'>, head: number): RoleGroup[] {
  return image.questions.flatMap(({ group }) => {
    const verdict = batch.verdicts.get(group)?.reasoner
    const answers = batch.answers.get(group)
    if (!verdict || !answers) return []
    return {
      id: group,
      index: image.index,
      image: answers.image,
      prompt: answers.prompt,
      lag: head - answers.weights,
      refused: !verdict.keep,
      completions: answers.completions,
      rewards_G: verdict.rewards,
    }
  })
}

type TrainedCompletion = Required<PolicyCompletion>

interface Trained {
  readonly id: string
  readonly role: Role
  readonly index: number
  readonly image: string
  readonly prompt: string
  readonly completions: TrainedCompletion[]
}

function trainRole(
  role: Role,
  all: Readonly<Record<Role, readonly RoleGroup[]>>,
  { loss, maxTokens, roleWeights, maxLag }: AssembleOptions,
): { trained: Trained[]; dropped: { group: string; reason: string }[] } {
  const groups = all[role].filter((group) => group.completions.length > 0)
  if (groups.length === 0 || roleWeights[role] === 0) return { trained: [], dropped: [] }
  const { advantages_P_G } = groupAdvantages(
    groups.map(({ rewards_G }) => rewards_G.map((reward) => [reward])),
    [{ name: role, weight: 1 }],
    { scale_rewards: 'group', multi_objective_aggregation: 'sum_then_normalize' },
  )
  const leaves_P = groups.map((group, p) => distinct(group, advantages_P_G[p]!))
  const rows = leaves_P.flat()
  const weights = tokenWeights(
    loss.loss_type,
    rows.map((leaf) => leaf.tokens.length),
    { counts_B: rows.map((leaf) => leaf.count), maxCompletionLength: maxTokens[role] },
  )
  const trained: Trained[] = []
  const dropped: { group: string; reason: string }[] = []
  let next = 0
  for (const [p, group] of groups.entries()) {
    const { id, index, image, prompt } = group
    const given = group.lag > 0 || usesSampler(loss)
    const completions = leaves_P[p]!.map(({ tokens, logprobs, advantage, count }) => ({
      tokens,
      logprobs: given ? logprobs : null,
      advantage,
      count,
      weight: roleWeights[role] * weights[next++]!,
    }))
    const why = reasonNotTo(group, maxLag)
    if (why === null) trained.push({ id, role, index, image, prompt, completions })
    else if (why !== REFUSED) dropped.push({ group: id, reason: why })
  }
  return { trained, dropped }
}

/** Why a group is not trained. */
function reasonNotTo({ lag, refused, rewards_G }: RoleGroup, maxLag: number): string | null {
  if (lag > maxLag) return `lag ${lag}`
  if (refused) return REFUSED
  return rewards_G.every((reward) => reward === rewards_G[0]) ? 'zero variance' : null
}

/** Whether a loss compares the policy with what sampled even where both are the same weights. */
function usesSampler(loss: GrpoConfig): boolean {
  const { sampler_correction, off_policy_mask_threshold } = fullGrpoConfig(loss)
  return sampler_correction !== null || off_policy_mask_threshold !== null
}

/** Identical completions with one reward are one leaf of the token tree; they differ in nothing that is trained. */
function distinct({ completions }: RoleGroup, advantages_G: readonly number[]): Leaf[] {
  const leaves = new Map<string, Leaf>()
  completions.forEach(({ tokens, logprobs }, g) => {
    if (tokens.length === 0) return
    const key = `${advantages_G[g]} ${tokens.join(' ')}`
    const count = (leaves.get(key)?.count ?? 0) + 1
    leaves.set(key, { tokens, logprobs, advantage: advantages_G[g]!, ...leaves.get(key), count })
  })
  return [...leaves.values()]
}

/** Whole images, so that all groups of one image share its prefix in one forward pass. */
function cut(trained: readonly Trained[], { loss, microBatchImages }: AssembleOptions): Part[] {
  const indices = [...new Set(trained.map((group) => group.index))]
  const parts: Part[] = []
  for (let start = 0; start < indices.length; start += microBatchImages) {
    const images = new Set(indices.slice(start, start + microBatchImages))
    const groups = trained.filter((group) => images.has(group.index))
    const batch = {
      loss,
      groups: groups.map(({ image, prompt, role, completions }) => ({
        image,
        prompt,
        // Without a correction nobody asks, and the batch is the one that releases before this had.
        ...(fullGrpoConfig(loss).sampler_correction !== null && { role }),
        completions: completions.map(copy),
      })),
    }
    parts.push({ groups: groups.map((group) => group.id), batch })
  }
  return parts
}

const copy = ({ tokens, logprobs, advantage, count, weight }: TrainedCompletion) => ({
  tokens: [...tokens],
  logprobs: logprobs && [...logprobs],
  advantage,
  count,
  weight,
})

function deadOf({ dead }: StepBatch): { group: string; reason: string }[] {
  return [...dead].map(([group, cause]) => ({ group, reason: `given up: ${cause}` }))
}
