import { describe, expect, test } from 'vitest'
import { assemble, type AssembleOptions } from '../actors/assemble.ts'
import { StepBook, type StepBatch } from '../actors/step-book.ts'
import type { LogRecord } from '../bus/bus.ts'
import type { Completion, EventData, EventName } from '../bus/messages.ts'

const IMAGE = `sha256-${'0'.repeat(64)}`
const OPTIONS: AssembleOptions = {
  loss: { loss_type: 'grpo', epsilon: 0.2, epsilon_high: null, delta: null, beta: 0, sampler_cap: null },
  maxTokens: { questioner: 8, reasoner: 8 },
  roleWeights: { questioner: 1, reasoner: 1 },
  microBatchImages: 1,
  maxLag: 0,
}

let seq = 0
function record<E extends EventName>(event: E, id: string, data: EventData<E>): LogRecord<E> {
  const message = { schema: event, version: 1, traceparent: '', at: '', by: 'test.1', data }
  return { seq: ++seq, event, id, message }
}

const completion = (id: string, tokens: number[]): Completion => ({
  id,
  text: tokens.join(),
  tokens,
  logprobs: tokens.map((t) => -t / 10),
  finished: true,
})

interface Group {
  readonly reward: number
  readonly answers?: number[][]
  readonly rewards?: number[]
  readonly keep?: boolean
}

/** One step; a group without answers is malformed. */
function batchOf(images: readonly (readonly Group[])[], weights = 0): StepBatch {
  const book = new StepBook(images.length)
  images.forEach((groups, index) => {
    const questions = groups.map((group, q) => ({
      group: `s1-i${index}-q${q}`,
      completion: completion(`c${q}`, [10 + q, 1]),
      question: 'q?',
      silver: 'a',
      type: 't',
      malformed: group.answers ? null : 'no question mark',
    }))
    const about = { step: 1, index, expects: images.length, image: IMAGE, name: 'x.png', prompt: 'ask', weights }
    book.apply(record('questions', `s1-i${index}`, { ...about, questions }))
    groups.forEach(({ reward, answers, rewards, keep = true }, q) => {
      const group = `s1-i${index}-q${q}`
      if (answers) {
        const completions = answers.map((tokens, g) => completion(`a${g}`, tokens))
        const parsed = answers.map((tokens) => tokens.join())
        book.apply(
          record('answers', group, { step: 1, group, image: IMAGE, prompt: 'q?', weights, completions, parsed }),
        )
      }
      const reasoner = answers
        ? { rewards: rewards!, keep, dropped: keep ? null : 'why', agreement: 1, majority: 'a', share: 1 }
        : null
      const judge = { name: 'test', version: '1' }
      book.apply(
        record('verdict', group, {
          step: 1,
          group,
          judge,
          recipe: 'consensus',
          questioner: { reward, parts: {} },
          reasoner,
        }),
      )
    })
  })
  return book.batch(1)
}

const ANSWERS = [
  [5, 1],
  [6, 7, 1],
  [5, 1],
  [5, 1],
]

describe('assemble', () => {
  test('identical completions are one leaf with their count; weights are those of the whole batch', () => {
    const batch = batchOf([[{ reward: 1, answers: ANSWERS, rewards: [1, 0, 1, 1] }, { reward: 0 }]])
    const { parts, dropped } = assemble(batch, 0, OPTIONS)
    expect(dropped).toEqual([])
    expect(parts.map((part) => part.groups)).toEqual([['s1-i0', 's1-i0-q0']])
    const [questioner, reasoner] = parts[0]!.batch.groups
    expect(questioner!.completions.map((c) => c.tokens)).toEqual([
      [10, 1],
      [11, 1],
    ])
    // grpo: the mean over samples of the mean over their tokens.
    expect(questioner!.completions.map((c) => c.weight)).toEqual([0.25, 0.25])
    expect(reasoner!.completions.map((c) => [c.count, c.tokens.length])).toEqual([
      [3, 2],
      [1, 3],
    ])
    expect(reasoner!.completions[0]!.weight).toBeCloseTo(3 / 4 / 2, 6)
    expect(reasoner!.completions[1]!.weight).toBeCloseTo(1 / 4 / 3, 6)
    // (1 − ¾) / (½ + ε): TRL's normalisation in the group, with the sample deviation.
    expect(reasoner!.completions[0]!.advantage).toBeCloseTo(0.25 / (0.5 + 1e-4), 6)
    expect(reasoner!.completions[1]!.advantage).toBeCloseTo(-0.75 / (0.5 + 1e-4), 6)
  })

  test('equal completions with different rewards stay apart', () => {
    const batch = batchOf([
      [
        {
          reward: 1,
          answers: [
            [5, 1],
            [5, 1],
          ],
          rewards: [1, 0],
        },
      ],
    ])
    const reasoner = assemble(batch, 0, OPTIONS).parts[0]!.batch.groups[0]!
    expect(reasoner.completions.map((c) => c.count)).toEqual([1, 1])
    expect(reasoner.completions[0]!.advantage).toBeCloseTo(-reasoner.completions[1]!.advantage, 9)
  })

  test('groups without variance are dropped by name; refused ones say so in their verdict', () => {
    const flat = { reward: 1, answers: ANSWERS, rewards: [1, 1, 1, 1] }
    const refused = { reward: 1, answers: ANSWERS, rewards: [1, 0, 1, 1], keep: false }
    const { parts, dropped } = assemble(batchOf([[flat, refused]]), 0, OPTIONS)
    expect(parts).toEqual([])
    expect(dropped).toEqual([
      { group: 's1-i0', reason: 'zero variance' },
      { group: 's1-i0-q0', reason: 'zero variance' },
    ])
  })

  test('left-out groups keep their place in the normaliser', () => {
    const good = {
      reward: 1,
      answers: [
        [5, 1],
        [6, 1],
      ],
      rewards: [1, 0],
    }
    const flat = {
      reward: 0,
      answers: [
        [5, 1],
        [6, 1],
      ],
      rewards: [1, 1],
    }
    const alone = assemble(batchOf([[good]]), 0, OPTIONS).parts[0]!.batch.groups.at(-1)!
    const beside = assemble(batchOf([[good, flat]]), 0, OPTIONS).parts[0]!.batch.groups.at(-1)!
    expect(beside.completions[0]!.weight).toBeCloseTo(alone.completions[0]!.weight / 2, 7)
  })

  test("the sampler's logprobs travel only where they are needed: their last bits vary with its batches", () => {
    const groups = [[{ reward: 1, answers: ANSWERS, rewards: [1, 0, 1, 1] }, { reward: 0 }]]
    const given = (head: number, options: Partial<AssembleOptions>) => {
      const { parts } = assemble(batchOf(groups), head, { ...OPTIONS, maxLag: 1, ...options })
      return parts[0]!.batch.groups.flatMap((g) => g.completions.map((c) => c.logprobs !== null))
    }
    expect(given(0, {})).toEqual([false, false, false, false])
    expect(given(1, {})).toEqual([true, true, true, true])
    expect(given(0, { loss: { ...OPTIONS.loss, sampler_cap: 2 } })).toEqual([true, true, true, true])
    expect(given(0, { loss: { ...OPTIONS.loss, off_policy_mask_threshold: 1 } })).toEqual([true, true, true, true])
  })

  test('a correction is told for each role', () => {
    const groups = [[{ reward: 1, answers: ANSWERS, rewards: [1, 0, 1, 1] }, { reward: 0 }]]
    const roles = (options: Partial<AssembleOptions>) =>
      assemble(batchOf(groups), 0, { ...OPTIONS, ...options }).parts[0]!.batch.groups.map((g) => g.role)
    expect(roles({ loss: { ...OPTIONS.loss, sampler_cap: 2 } })).toEqual(['questioner', 'reasoner'])
    expect(roles({})).toEqual([undefined, undefined])
  })

  test('groups over the lag are dropped', () => {
    const groups = [[{ reward: 1, answers: ANSWERS, rewards: [1, 0, 1, 1] }, { reward: 0 }]]
    expect(assemble(batchOf(groups), 2, OPTIONS).dropped.map((d) => d.reason)).toEqual(['lag 2', 'lag 2'])
    expect(assemble(batchOf(groups), 2, { ...OPTIONS, maxLag: 2 }).dropped).toEqual([])
  })

  test('a role of weight 0 is left out, a role weight multiplies', () => {
    const groups = [[{ reward: 1, answers: ANSWERS, rewards: [1, 0, 1, 1] }, { reward: 0 }]]
    const roleWeights = { questioner: 0, reasoner: 2 }
    const { parts } = assemble(batchOf(groups), 0, { ...OPTIONS, roleWeights })
    expect(parts[0]!.groups).toEqual(['s1-i0-q0'])
    expect(parts[0]!.batch.groups[0]!.completions[0]!.weight).toBeCloseTo((2 * 3) / 4 / 2, 6)
  })

  test('micro-batches are whole images in order, and their weights add up to those of one', () => {
    const groups = Array.from({ length: 5 }, () => [
      { reward: 1, answers: ANSWERS, rewards: [1, 0, 1, 1] },
      { reward: 0, answers: ANSWERS, rewards: [0, 1, 0, 0] },
    ])
    const one = assemble(batchOf(groups), 0, { ...OPTIONS, microBatchImages: 5 }).parts
    const many = assemble(batchOf(groups), 0, { ...OPTIONS, microBatchImages: 2 }).parts
    expect(many.map((part) => part.groups.length)).toEqual([6, 6, 3])
    expect(many.flatMap((part) => part.batch.groups)).toEqual(one.flatMap((part) => part.batch.groups))
  })

  test('given-up images and groups are dropped with their cause', () => {
    const book = new StepBook(1)
    book.apply(
      record('dead', 'questioner-images-s1-i0', { kind: 'questioner.images', id: 's1-i0', cause: 'c', deliveries: 5 }),
    )
    expect(assemble(book.batch(1), 0, OPTIONS)).toEqual({
      parts: [],
      dropped: [{ group: 's1-i0', reason: 'given up: c' }],
    })
  })
})

describe('StepBook', () => {
  const signal = new AbortController().signal
  const dead = (kind: string, id: string) => record('dead', `x-${id}`, { kind, id, cause: 'c', deliveries: 5 })

  test('a step of given-up images is judged', async () => {
    const book = new StepBook(2)
    const judged = book.when(1, 'judged', signal)
    book.apply(dead('questioner.images', 's1-i0'))
    book.apply(dead('questioner.images', 's1-i1'))
    expect((await judged)?.dead.size).toBe(2)
  })

  test('a given-up group counts as settled', async () => {
    const batch = batchOf([[{ reward: 1 }]])
    expect(batch.questions.size).toBe(1)
    const book = new StepBook(1)
    const questions = [...batch.images.values()][0]!
    book.apply(record('questions', 's1-i0', questions))
    const judged = book.when(1, 'judged', signal)
    book.apply(dead('judge.groups', 's1-i0-q0'))
    expect((await judged)?.verdicts.size).toBe(0)
  })

  const GROUP = { reward: 1, answers: ANSWERS, rewards: [1, 0, 1, 1] }

  test('a task of several that could not even be read counts for all of them', async () => {
    const book = new StepBook(4)
    const judged = book.when(1, 'judged', signal)
    book.apply(dead('questioner.images', 's1-i1to3'))
    const questions = [...batchOf([[GROUP, GROUP]]).images.values()][0]!
    book.apply(record('questions', 's1-i0', questions))
    book.apply(dead('judge.groups', 's1-i0'))
    expect([...(await judged)!.dead.keys()]).toEqual(['s1-i1', 's1-i2', 's1-i3', 's1-i0-q0', 's1-i0-q1'])
    const retried = { kind: 'judge.groups', id: 's1-i0', attempt: 1 }
    book.apply(record('retried', 'x-s1-i0-r1', retried))
    expect([...book.batch(1).dead.keys()]).toEqual(['s1-i1', 's1-i2', 's1-i3'])
  })

  test('a retried image and a retried group are waited for again', async () => {
    const retried = (kind: string, id: string) => record('retried', `x-${id}-r1`, { kind, id, attempt: 1 })
    const batch = batchOf([[{ reward: 1 }]])
    const questions = [...batch.images.values()][0]!
    const book = new StepBook(1)
    book.apply(dead('questioner.images', 's1-i0'))
    book.apply(retried('questioner.images', 's1-i0'))
    let done = false
    const judged = book.when(1, 'judged', signal).then((b) => ((done = true), b))
    book.apply(record('questions', 's1-i0', questions))
    book.apply(retried('judge.groups', 's1-i0-q0'))
    await new Promise(setImmediate)
    expect(done).toBe(false)
    book.apply(dead('judge.groups', 's1-i0-q0'))
    expect((await judged)?.dead.size).toBe(1)
    book.apply(retried('judge.groups', 's1-i0-q0'))
    expect(book.batch(1).dead.size).toBe(0)
  })

  test('past steps are over for whoever waits or comes late', async () => {
    const book = new StepBook(2)
    const waiting = book.when(1, 'asked', signal)
    book.forgetBefore(2)
    expect(await waiting).toBeNull()
    expect(await book.when(1, 'judged', signal)).toBeNull()
  })

  test('waiting ends with its signal', async () => {
    const controller = new AbortController()
    const waiting = new StepBook(2).when(1, 'asked', controller.signal)
    controller.abort(new Error('stopped'))
    await expect(waiting).rejects.toThrow('stopped')
  })
})
