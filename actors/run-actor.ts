/** A running actor: what runners start, watch and stop. Says on the bus what it is doing, for whoever watches. */
import { createActor, type AnyStateMachine, type EventObject } from 'xstate'
import type { LiveData } from '../bus/messages.ts'
import type { Ports } from './ports.ts'

export interface RunActor {
  readonly role: string
  /** State of its machine, for people. */
  state(): string
  /** Resolves when the actor has finished its work or was stopped; rejects when it broke. */
  readonly done: Promise<void>
  /** For events that come from outside the bus. */
  send(event: EventObject): void
  /** Takes no new work, gives back what is unfinished, and closes its ports. */
  stop(): Promise<void>
}

const HEARTBEAT_MS = 2_000

export interface RunActorOptions {
  /** The version that the actor works with, for watchers. */
  readonly weights?: () => number | null
  /** Input of the machine. */
  readonly input?: unknown
}

/** Starts a machine that understands `stop`. */
export function runActor(
  role: string,
  machine: AnyStateMachine,
  ports: Ports,
  { weights = () => null, input }: RunActorOptions = {},
): RunActor {
  const actor = createActor(machine, { clock: ports.clock, input })
  let state = ''
  const beat = (): void => {
    ports.bus.live('heartbeat', { state, weights: weights(), inFlight: ports.inFlight } satisfies LiveData<'heartbeat'>)
    timer = ports.clock.setTimeout(beat, HEARTBEAT_MS)
  }
  let timer: unknown = null
  const done = new Promise<void>((resolve, reject) => {
    actor.subscribe({
      next: (snapshot) => {
        const now = nameOf(snapshot.value)
        if (now === state) return
        ports.bus.live('transition', { actor: role, from: state, to: now, event: '' })
        state = now
      },
      complete: resolve,
      error: (error: unknown) => reject(error instanceof Error ? error : new Error(String(error))),
    })
  }).finally(() => ports.clock.clearTimeout(timer))
  // Whoever cares waits for `done`; a broken actor must not end the process before.
  done.catch(() => {})
  actor.start()
  state = nameOf(actor.getSnapshot().value)
  beat()
  return {
    role,
    done,
    state: () => state,
    send: (event) => {
      if (actor.getSnapshot().status === 'active') actor.send(event)
    },
    stop: async () => {
      if (actor.getSnapshot().status === 'active') actor.send({ type: 'stop' })
      await done.catch(() => {})
      await ports.close()
    },
  }
}

/** `working`, or `working.pulling` for nested states. */
function nameOf(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value)
  return Object.entries(value)
    .map(([key, inner]) => `${key}.${nameOf(inner)}`)
    .join(' ')
}
