import { afterEach, expect, test } from 'vitest'
import { logOf, World, type WorldOptions } from './support/actors-world.ts'

let world: World | null = null
afterEach(async () => {
  await world?.stop()
  world = null
})

async function play(options: WorldOptions = {}): Promise<World> {
  world = new World(options).start()
  await world.finished()
  return world
}

test('images become version 2, every message in the log', async () => {
  const { net, warnings } = await play()
  const log = await logOf(net)
  const ids = (event: string) => log.filter((r) => r.event === event).map((r) => r.id)
  expect(warnings).toEqual([])
  expect(ids('version')).toEqual(['v0', 'v1', 'v2'])
  expect(ids('step')).toEqual(['s1', 's2'])
  expect(ids('questions').toSorted()).toEqual([1, 2].flatMap((s) => [0, 1, 2, 3].map((i) => `s${s}-i${i}`)))
  expect(ids('verdict')).toHaveLength(16)
  expect(ids('dead')).toEqual([])
})
