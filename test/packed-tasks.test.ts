/** Several images to a task: the same run with fewer messages, and no item shares the fate of another. */
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { groupsId, holdsGroup, imagesOf, sliceId } from '../actors/ids.ts'
import { logOf, ROLES, World, type WorldOptions } from './support/actors-world.ts'

const SIZE: WorldOptions = { steps: 3, perStep: 5, images: 7, ackWaitMs: 40 }

let world: World | null = null
async function play(options: WorldOptions, prepare: (world: World) => void = () => {}): Promise<World> {
  world = new World({ ...SIZE, ...options })
  prepare(world)
  return world.start().finished()
}
afterEach(async () => {
  await world?.stop()
  world = null
})

const idsOf = async (played: World, event: string) =>
  (await logOf(played.net)).filter((record) => record.event === event).map(({ id }) => id)

describe('a run', () => {
  let alone: string[]
  beforeAll(async () => {
    alone = await (await play({ perTask: 1 })).adapters()
    await world!.stop()
  })

  test.each([2, 3, 5, 64])('of %i images to a task has the versions of one of single images', async (perTask) => {
    const played = await play({ perTask })
    expect(await played.adapters()).toEqual(alone)
    const tasks = Math.ceil(5 / perTask)
    const asked = (await idsOf(played, 'generated')).filter((id) => id.startsWith('ask-'))
    expect(asked).toHaveLength(3 * tasks)
    expect(played.warnings).toEqual([])
  })

  test('of several images to a task survives doubled, late and lost deliveries', async () => {
    const played = await play({ perTask: 2, faults: { seed: 4, duplicate: 0.2, reorder: 0.3, delayMs: 5, drop: 0.05 } })
    expect(await played.adapters()).toEqual(alone)
  })

  test('that goes on after its source died in mid-step asks about what is left', async () => {
    world = new World({ ...SIZE, perTask: 2 }).start(ROLES.filter((role) => role !== 'source'))
    const source = world.startOne('source')
    const bus = world.net.connect('test.first')
    await bus.await('questions', 's2-i0', AbortSignal.timeout(10_000))
    await source.stop()
    world.startOne('source')
    await world.finished()
    expect(await world.adapters()).toEqual(alone)
    await bus.close()
  })
})

/** What is poisoned, by the ids of the events of an undisturbed run. */
const POISONS: readonly (readonly [string, (answered: readonly string[]) => string])[] = [
  ['an image', () => 'ask-s2-i1'],
  ['a question', (answered) => `answer-${answered.findLast((id) => id.startsWith('s1-'))}`],
]

describe('an item that fails', () => {
  test.each(POISONS)(
    '%s has its own tries and its own dead letters; the rest of its task is done',
    async (_, choose) => {
      const key = choose(await idsOf(await play({ perTask: 1 }), 'answers'))
      await world!.stop()
      const poison = (w: World) => (w.model.poison = (request) => request.key === key)
      const single = await (await play({ perTask: 1 }, poison)).adapters()
      const [letters, dropped] = [await idsOf(world!, 'dead'), await idsOf(world!, 'dropped')]
      await world!.stop()
      expect(letters.length).toBeGreaterThan(0)
      const packed = await play({ perTask: 5 }, poison)
      expect(await packed.adapters()).toEqual(single)
      expect(await idsOf(packed, 'dead')).toEqual(letters)
      expect(await idsOf(packed, 'dropped')).toEqual(dropped)
      const refused = (await logOf(packed.net)).flatMap((r) =>
        r.event === 'generated' && r.message.data.error !== undefined
          ? [[r.id, r.message.data.completions.length]]
          : [],
      )
      expect(refused).toEqual([[key.replace(/i\d+(-q\d+)?$/, 'i0to4'), 0]])
    },
    60_000,
  )
})

describe('ids', () => {
  test('say which images and groups a task is about', () => {
    expect(sliceId(3, 4, 4)).toBe('s3-i4')
    expect(sliceId(3, 4, 6)).toBe('s3-i4to6')
    expect(imagesOf('s3-i4to6')).toEqual(['s3-i4', 's3-i5', 's3-i6'])
    expect(imagesOf('ask-s3-i9to10')).toEqual(['s3-i9', 's3-i10'])
    expect(imagesOf('s3-i4-q1')).toEqual(['s3-i4'])
    expect([imagesOf('s3-i5to4'), imagesOf('s3-i0to999999999999')]).toEqual([[], []])
    expect([imagesOf('s3'), imagesOf('v3-held-out'), imagesOf('s3-m0-abc')]).toEqual([[], [], []])
    expect(groupsId('s3-i4to6', [{ group: 's3-i5-q0' }])).toBe('s3-i5-q0')
    expect(groupsId('s3-i4to6', [{ group: 's3-i5-q0' }, { group: 's3-i6-q0' }])).toBe('s3-i4to6')
  })

  test('a task holds the groups of its images, that of one group only this', () => {
    expect(holdsGroup('s3-i4to6', 's3-i5-q1')).toBe(true)
    expect(holdsGroup('s3-i4to6', 's3-i7-q1')).toBe(false)
    expect(holdsGroup('s3-i4to6', 's2-i5-q1')).toBe(false)
    expect(holdsGroup('s3-i5-q1', 's3-i5-q1')).toBe(true)
    expect(holdsGroup('s3-i5-q1', 's3-i5-q10')).toBe(false)
  })
})
