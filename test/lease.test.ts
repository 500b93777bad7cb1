/** Leases on the memory bus and a simulated clock: who works when. */
import { SimulatedClock } from 'xstate'
import { beforeEach, describe, expect, test } from 'vitest'
import { EXPIRE_MS, RENEW_MS, whileFree, whileHeld } from '../actors/lease.ts'
import { createMemoryNet, type MemoryNet } from '../bus/memory.ts'
import type { Bus } from '../bus/bus.ts'

let clock: SimulatedClock
let net: MemoryNet
/** Who works now, in the order in which they began. */
let working: string[]

beforeEach(() => {
  clock = new SimulatedClock()
  net = createMemoryNet('lease', { clock })
  working = []
})

/** Lets promises and messages that are under way arrive. */
const settle = async () => {
  for (let i = 0; i < 50; i++) await new Promise(setImmediate)
}
async function pass(ms: number): Promise<void> {
  for (let done = 0; done < ms; done += 500) {
    clock.increment(500)
    await settle()
  }
}

interface Player {
  readonly bus: Bus
  readonly stop: () => Promise<void>
}

function play(name: string, how: 'free' | 'hold' | 'preempt', over: Bus = net.connect(`${name}.1`)): Player {
  const controller = new AbortController()
  const options = { bus: over, clock, key: 'claim.judge.groups' }
  const work = (held: AbortSignal) =>
    new Promise<void>((resolve) => {
      working.push(name)
      held.addEventListener('abort', () => {
        working = working.filter((other) => other !== name)
        resolve()
      })
    })
  const me = { instance: `${name}.1`, name, version: '1' }
  const done =
    how === 'free'
      ? whileFree(options, controller.signal, work)
      : whileHeld({ ...options, me, preempt: how === 'preempt' }, controller.signal, work)
  return {
    bus: over,
    stop: async () => {
      controller.abort()
      await settle()
      await done
    },
  }
}

describe('a lease', () => {
  test('goes to who preempts, comes back when they leave, and is free at last', async () => {
    const own = play('own', 'free')
    await settle()
    expect(working).toEqual(['own'])
    const first = play('first', 'preempt')
    await settle()
    expect(working).toEqual(['first'])
    const second = play('second', 'preempt')
    await settle()
    expect(working).toEqual(['second'])
    await pass(3 * EXPIRE_MS)
    expect(working).toEqual(['second'])
    await second.stop()
    await settle()
    expect(working).toEqual(['first'])
    await first.stop()
    await settle()
    expect(working).toEqual(['own'])
    await own.stop()
    expect(working).toEqual([])
  })

  test('goes to who preempts although the holder renews it at the same moment', async () => {
    play('first', 'preempt')
    await settle()
    const bus = net.connect('second.1')
    let late = true
    const slow = new Proxy(bus, {
      get: (target, property) => {
        const own = (Reflect.get(target, property) as (...args: unknown[]) => unknown).bind?.(target)
        if (property !== 'moveValue') return own
        return async (...args: unknown[]) => {
          // What was seen of the lease is an old one by the time that this is written.
          if (late) await pass(RENEW_MS)
          late = false
          return own(...args)
        }
      },
    })
    const second = play('second', 'preempt', slow)
    await pass(2 * RENEW_MS)
    expect(late).toBe(false)
    expect(working).toEqual(['second'])
    await second.stop()
    await settle()
    expect(working).toEqual(['first'])
  })

  test('of who is killed expires, and not before its time', async () => {
    play('own', 'free')
    const killed = play('killed', 'preempt')
    await pass(2 * RENEW_MS)
    expect(working).toEqual(['killed'])
    net.crash(killed.bus)
    await pass(EXPIRE_MS - RENEW_MS - 500)
    expect(working).not.toContain('own')
    await pass(RENEW_MS + 1000)
    expect(working).toContain('own')
  })

  test('is waited for by who does not preempt; one of them gets it', async () => {
    const leader = play('leader', 'hold')
    await settle()
    play('standby-1', 'hold')
    play('standby-2', 'hold')
    await pass(2 * EXPIRE_MS)
    expect(working).toEqual(['leader'])
    await leader.stop()
    await pass(1000)
    expect(working).toHaveLength(1)
    expect(working[0]).toMatch(/^standby/)
    const [winner] = working
    await pass(3 * EXPIRE_MS)
    expect(working).toEqual([winner])
  })

  test('is taken at last by who could not write it at first, though nobody else says anything', async () => {
    const bus = net.connect('alone.1')
    let away = 2
    const wall = new Proxy(bus, {
      get: (target, property) =>
        property === 'moveValue' && away-- > 0
          ? () => Promise.reject(new Error('no connection'))
          : (Reflect.get(target, property) as () => unknown).bind?.(target),
    })
    const alone = play('alone', 'hold', wall)
    await settle()
    expect(working).toEqual([])
    await pass(2 * RENEW_MS)
    expect(working).toEqual(['alone'])
    await alone.stop()
  })

  test('is lost by who cannot renew it, as soon as others may believe it free', async () => {
    const bus = net.connect('cut.1')
    let cut = false
    const wall = new Proxy(bus, {
      get: (target, property) =>
        property === 'moveValue' && cut
          ? () => Promise.reject(new Error('no connection'))
          : (Reflect.get(target, property) as () => unknown).bind?.(target),
    })
    play('cut', 'hold', wall)
    await pass(RENEW_MS)
    expect(working).toEqual(['cut'])
    cut = true
    play('other', 'hold')
    await pass(EXPIRE_MS + 1000)
    expect(working).toEqual(['other'])
  })
})
