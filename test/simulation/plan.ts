/** What goes wrong in a simulation, all of it drawn from its seed. */
import type { Faults } from '../../bus/memory/faults.ts'
import { ROLES, type RoleName, type RunSize } from '../support/actors-world.ts'
import { rng } from '../support/rng.ts'
import type { Climate } from './weather.ts'

/** A process hangs or dies around one of its operations. */
export interface Strike {
  readonly what: 'kill' | 'freeze'
  /** Whom it strikes; null = anybody. */
  readonly role: RoleName | null
  /** Which operation; null = any. */
  readonly operation: string | null
  /** The how manieth such operation. */
  readonly count: number
  readonly when: 'before' | 'after'
  /** It goes on, or another one takes its place, after this time. */
  readonly ms: number
}

/** Somebody comes or goes, at the how manieth operation of all. */
export interface Change {
  readonly what: 'join' | 'leave' | 'kill all'
  readonly role: RoleName
  readonly count: number
  readonly ms: number
}

export interface Plan {
  readonly seed: number
  readonly size: RunSize
  /** A request of the model that always fails; null = none. */
  readonly poison: string | null
  readonly cast: readonly RoleName[]
  /** Whether an Optimizer takes over at once from one that leads. */
  readonly preempt: boolean
  readonly ackWaitMs: number
  readonly dedupeWindowMs: number
  readonly deliveries: Faults
  readonly climate: Climate
  /** Clocks of processes go wrong by up to this many milliseconds. */
  readonly skewMs: number
  /** Longest batch of the model. */
  readonly batchMs: number
  readonly strikes: readonly Strike[]
  readonly changes: readonly Change[]
}

const SIZE: RunSize = { steps: 3, perStep: 2, images: 5, questions: 2, answers: 3, microBatchImages: 1, maxLag: 0 }
const CALM: Climate = {
  latencyMs: 0,
  unanswered: 0,
  refused: 0,
  late: 0,
  noticeMs: 0,
  broken: 0,
  doubled: 0,
  unacknowledged: 0,
}

/** A run in which nothing goes wrong. */
export const undisturbed = (poison: string | null): Plan => ({
  seed: 0,
  size: SIZE,
  poison,
  cast: ROLES,
  preempt: true,
  ackWaitMs: 30_000,
  dedupeWindowMs: 120_000,
  deliveries: { seed: 0 },
  climate: CALM,
  skewMs: 0,
  batchMs: 0,
  strikes: [],
  changes: [],
})

/** Requests of the model, one for each way in which a group can be lost. */
const POISONS = ['ask-s2-i1', 'answer-s1-i0-q0', 'answer-s3-i1-q1']

/** Where it hurts most. */
const TENDER: readonly (readonly [RoleName, string])[] = [
  ['optimizer', 'move.head'],
  ['optimizer', 'get.head'],
  ['optimizer', 'append.version'],
  ['optimizer', 'append.step'],
  ['optimizer', 'append.dropped'],
  ['optimizer', 'deleteBlob'],
  ['optimizer', 'putBlob'],
  ['optimizer', 'publish.model.gradient'],
  ['optimizer', 'await.gradient'],
  ['optimizer', 'move.lease.optimizer'],
  ['model', 'append.generated'],
  ['model', 'append.gradient'],
  ['model', 'done.model.generate'],
  ['model', 'done.model.gradient'],
  ['model', 'getBlob'],
  ['questioner', 'append.questions'],
  ['questioner', 'publish.reasoner.questions'],
  ['questioner', 'done.questioner.images'],
  ['questioner', 'await.generated'],
  ['reasoner', 'append.answers'],
  ['reasoner', 'publish.judge.groups'],
  ['reasoner', 'done.reasoner.questions'],
  ['judge', 'append.verdict'],
  ['judge', 'done.judge.groups'],
  ['source', 'publish.questioner.images'],
  ['source', 'append.image'],
]

/** Operations of a whole run, about. */
const OPERATIONS = 420

export function planOf(seed: number): Plan {
  const random = rng(seed)
  const chance = (share: number): boolean => random() < share
  const one = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  const upTo = (most: number): number => Math.floor(random() * (most + 1))
  /** Nothing, little or much. */
  const share = (little: number, much: number): number => one([0, 0, little, little, much])
  const latencyMs = one([0, 1, 3, 20, 200])
  const zombie = chance(0.2)
  const optimizers = zombie ? 2 : one([1, 1, 2, 2, 2, 3])
  const extras = Array.from({ length: upTo(2) }, () => one(ROLES))
  return {
    seed,
    size: { ...SIZE, perTask: one([1, 2]), maxLag: chance(0.1) ? 1 : 0 },
    poison: chance(0.15) ? one(POISONS) : null,
    cast: [...ROLES, ...Array.from({ length: optimizers - 1 }, () => 'optimizer' as const), ...extras],
    preempt: chance(0.3),
    ackWaitMs: one([1_000, 4_000, 20_000]),
    dedupeWindowMs: one([0, 5_000, 120_000]),
    deliveries: {
      seed,
      drop: share(0.01, 0.05),
      duplicate: share(0.03, 0.15),
      reorder: share(0.1, 0.6),
      delayMs: one([0, 0, 20, 2_000]),
    },
    climate: {
      latencyMs,
      unanswered: share(0.005, 0.02),
      refused: share(0.001, 0.01),
      late: share(0.02, 0.2),
      noticeMs: one([10, 300, 3_000]),
      broken: share(0.002, 0.01),
      doubled: share(0.02, 0.1),
      unacknowledged: share(0.01, 0.05),
    },
    skewMs: one([0, 1_000, 600_000]),
    batchMs: one([1, 5, 100, 2_000]),
    strikes: [
      ...Array.from({ length: one([0, 1, 1, 2, 3, 4]) }, () => strike()),
      ...(zombie ? [asleepAtCommit()] : []),
    ],
    changes: Array.from({ length: one([0, 0, 1, 2, 4]) }, () => change()),
  }

  function strike(): Strike {
    const what = chance(0.6) ? 'kill' : 'freeze'
    const when = chance(0.5) ? 'before' : 'after'
    const ms = what === 'kill' ? one([1, 500, 5_000, 12_000]) : one([500, 3_000, 10_000, 25_000])
    if (chance(0.4)) return { what, role: null, operation: null, count: 1 + upTo(OPERATIONS), when, ms }
    const [role, operation] = one(TENDER)
    return { what, role, operation, count: 1 + upTo(6), when, ms }
  }

  /** A leader that hangs at its commit until another one leads, then goes on. */
  function asleepAtCommit(): Strike {
    const [operation, when] = one([
      ['move.head', 'before'],
      ['move.head', 'after'],
      ['putBlob', 'after'],
    ] as const)
    return { what: 'freeze', role: 'optimizer', operation, count: 2 + upTo(4), when, ms: one([10_000, 14_000]) }
  }

  function change(): Change {
    const what = one(['join', 'join', 'leave', 'kill all'] as const)
    return { what, role: one(ROLES), count: 1 + upTo(OPERATIONS), ms: one([1, 1_000, 10_000]) }
  }
}
