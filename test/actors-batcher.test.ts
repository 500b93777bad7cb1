import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { nextBatch, type Batch, type Waiting } from '../actors/batcher.ts'

const LIMITS = { maxRows: 64 }

function generate(id: string, over: Partial<Waiting> = {}): Waiting {
  const one = { minWeights: 0, weights: null, cohort: null, prompts: 1, rows: 1 }
  return { key: `${id}.1`, id, kind: 'model.generate', ...one, ...over }
}

const cohort = (id: string, size: number, members: number, over: Partial<Waiting> = {}): Waiting[] =>
  Array.from({ length: members }, (_, i) => generate(`${id}-${i}`, { cohort: { id, size }, ...over }))

describe('nextBatch', () => {
  test('a cohort waits for its last member, and is then served whole, sorted by id', () => {
    const members = cohort('a', 3, 3)
    expect(nextBatch(members.slice(0, 2), 0, false, LIMITS)).toBeNull()
    expect(nextBatch(members.toReversed(), 0, false, LIMITS)?.keys).toEqual(['a-0.1', 'a-1.1', 'a-2.1'])
  })

  test('requests of several prompts count as many members', () => {
    const [first, second, third] = cohort('a', 5, 3, { prompts: 2 }) as [Waiting, Waiting, Waiting]
    expect(nextBatch([first, second], 0, false, LIMITS)).toBeNull()
    expect(nextBatch([first, { ...second, prompts: 3 }], 0, false, LIMITS)?.keys).toHaveLength(2)
    expect(nextBatch([first, second, third], 0, false, LIMITS)?.keys).toHaveLength(3)
  })

  test('two deliveries of one request are one member', () => {
    const [first, second] = cohort('a', 3, 2) as [Waiting, Waiting]
    expect(nextBatch([first, second, { ...first, key: 'a-0.2' }], 0, false, LIMITS)).toBeNull()
  })

  test('requests of newer versions than the head wait, whatever happens', () => {
    const early = cohort('a', 2, 2, { minWeights: 5 })
    expect(nextBatch(early, 4, true, LIMITS)).toBeNull()
    expect(nextBatch(early, null, true, LIMITS)).toBeNull()
    expect(nextBatch(early, 5, false, LIMITS)).not.toBeNull()
  })

  test('gradients go first and alone', () => {
    const gradient = (id: string): Waiting => generate(id, { kind: 'model.gradient', weights: 0 })
    const batch = nextBatch([...cohort('a', 2, 2), gradient('m1'), gradient('m0')], 0, false, LIMITS)
    expect(batch).toEqual({ kind: 'model.gradient', weights: 0, keys: ['m0.1'] })
  })

  test('the newest weights go before pinned ones', () => {
    const pinned = cohort('p', 2, 2, { weights: 1 })
    expect(nextBatch([...pinned, ...cohort('z', 1, 1)], 3, false, LIMITS)?.weights).toBeNull()
    expect(nextBatch(pinned, 3, false, LIMITS)?.weights).toBe(1)
  })

  test('a cohort over the size cap does not wait', () => {
    expect(nextBatch(cohort('a', 100, 2, { rows: 31 }), 0, false, LIMITS)).toBeNull()
    expect(nextBatch(cohort('a', 100, 2, { rows: 32 }), 0, false, LIMITS)?.keys).toHaveLength(2)
  })

  const waiting: fc.Arbitrary<Waiting> = fc
    .record({
      id: fc.nat(12).map((n) => `r${n}`),
      delivery: fc.nat(2),
      kind: fc.constantFrom('model.generate', 'model.logprobs', 'model.gradient'),
      minWeights: fc.nat(3),
      weights: fc.option(fc.nat(3)),
      cohort: fc.option(fc.record({ id: fc.constantFrom('a', 'b'), size: fc.integer({ min: 1, max: 4 }) })),
      prompts: fc.integer({ min: 1, max: 3 }),
      rows: fc.integer({ min: 1, max: 40 }),
    })
    .map(({ delivery, ...rest }) => ({ ...rest, key: `${rest.kind}-${rest.id}.${delivery}` }))
  const queue = fc.uniqueArray(waiting, { selector: (w) => w.key, maxLength: 20 })

  test('does not depend on the order of arrival', () => {
    fc.assert(
      fc.property(queue, fc.nat(4), fc.boolean(), fc.integer(), (requests, head, idle, shift) => {
        const turned = requests.map((_, i) => requests[(i + Math.abs(shift)) % requests.length]!).toReversed()
        expect(nextBatch(turned, head, idle, LIMITS)).toEqual(nextBatch(requests, head, idle, LIMITS))
      }),
    )
  })

  test('serves one kind under one version, never below what was asked for, and everything in the end', () => {
    fc.assert(
      fc.property(queue, fc.nat(4), (requests, head) => {
        const left = new Map(requests.map((request) => [request.key, request]))
        for (let batch: Batch | null; (batch = nextBatch(left.values(), head, true, LIMITS));) {
          expect(batch.keys.length).toBeGreaterThan(0)
          for (const key of batch.keys) {
            const request = left.get(key)!
            expect([request.kind, request.weights]).toEqual([batch.kind, batch.weights])
            expect(request.minWeights).toBeLessThanOrEqual(head)
            left.delete(key)
          }
        }
        expect([...left.values()].filter((r) => r.minWeights <= head && (r.weights ?? 0) <= head)).toEqual([])
      }),
    )
  })
})
