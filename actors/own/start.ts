/** From a definition to a running actor. */
import { fromPromise, type PromiseActorLogic } from 'xstate'
import { LostCauseError } from '../dead-tasks.ts'
import { judge } from '../judge.ts'
import { isReplaceable, type Ports, type ReplaceableKind, type RequestKind, type TaskRef } from '../ports.ts'
import { MAX_DELIVERIES } from '../../bus/limits.ts'
import type { Judge } from '../rewards/recipe.ts'
import type { Similarity } from '../rewards/similarity.ts'
import { runActor, type RunActor } from '../run-actor.ts'
import { bindWorker } from '../worker.ts'
import type { ActorContext, LogActor, OwnActor, TaskActor } from './define.ts'
import { followMachine } from './follow-machine.ts'

export interface OwnActorOptions {
  readonly config: Readonly<Record<string, unknown>>
  readonly similarity: Similarity
  /** The recipe of the run. */
  readonly recipe: Judge
  /** Images of a step, assumed until the log says it. */
  readonly images: number
  readonly log: (message: string) => void
}

/** The work of the run that the actor takes over, if any. */
export function replacedBy(actor: OwnActor): ReplaceableKind | null {
  if (actor.kind === 'judge') return 'judge.groups'
  const { consumes } = actor
  return typeof consumes === 'string' && isReplaceable(consumes) ? consumes : null
}

export function startOwnActor(ports: Ports, actor: OwnActor, options: OwnActorOptions): RunActor {
  switch (actor.kind) {
    case 'judge':
      return ownJudge(ports, actor, options)
    case 'task':
      return runActor(actor.role, taskMachine(ports, actor, options), ports)
    case 'log':
      return runActor(actor.role, logMachine(ports, actor, options), ports)
    case 'machine': {
      const context = contextOf(ports, actor.produces, options, new AbortController().signal)
      return runActor(actor.role, actor.machine(ports, context), ports)
    }
  }
}

function ownJudge(
  ports: Ports,
  { name, version, judge: own }: Extract<OwnActor, { kind: 'judge' }>,
  options: OwnActorOptions,
): RunActor {
  const { recipe: base, log } = options
  const stopping = new AbortController()
  const { signal } = stopping
  const recipe: Judge = {
    name,
    version,
    judge: (input, similarity) => own(input, { similarity, signal, log, base: () => base.judge(input, similarity) }),
  }
  const running = judge(ports, { ...options, recipe })
  return {
    ...running,
    stop: () => {
      stopping.abort()
      return running.stop()
    },
  }
}

const CREDIT = 64

function taskMachine(ports: Ports, { consumes, produces, credit, handle }: TaskActor, options: OwnActorOptions) {
  const task = fromPromise(async ({ input, signal }: { input: { task: TaskRef }; signal: AbortSignal }) => {
    await handle(input.task, contextOf(ports, produces, options, signal, input.task))
  })
  return bindWorker(ports, consumes, credit ?? CREDIT, task)
}

function logMachine(ports: Ports, { consumes, produces, handle }: LogActor, options: OwnActorOptions) {
  const follow: PromiseActorLogic<void> = fromPromise(({ signal }) =>
    ports.follow(consumes, signal, async (record) => {
      const context = contextOf(ports, produces, options, signal, record.message)
      for (let attempt = 1; ; attempt++) {
        try {
          await handle(record, context)
          return
        } catch (error) {
          if (signal.aborted) return
          ports.warn(`record ${record.seq} (${record.event} ${record.id}), attempt ${attempt}`, error)
          if (attempt >= MAX_DELIVERIES || error instanceof LostCauseError) return
          await ports.pause(100 * 2 ** attempt, signal)
        }
      }
    }),
  )
  return followMachine.provide({ actors: { follow } })
}

function contextOf(
  ports: Ports,
  produces: readonly string[],
  { config, similarity, log }: OwnActorOptions,
  signal: AbortSignal,
  parent?: { readonly traceparent: string },
): ActorContext {
  const { bus } = ports
  const allowed = (what: string): void => {
    if (produces.includes(what)) return
    throw new TypeError(`this actor produces ${produces.join(', ') || 'nothing'}: add "${what}" to its produces`)
  }
  return {
    run: bus.run,
    config,
    similarity,
    signal,
    log,
    append: async (event, id, data, trace = parent) => {
      allowed(event)
      await bus.append(event, id, data, trace)
    },
    publish: async (kind, id, task, trace = parent) => {
      allowed(kind)
      await bus.publish(kind, id, task, trace)
    },
    request: async <K extends RequestKind>(kind: K, id: string, task: Parameters<typeof ports.request<K>>[2]) => {
      allowed(kind)
      const reply = await ports.request(kind, id, task, { signal, again: true, ...(parent && { parent }) })
      return reply.message.data
    },
    find: (event, id) => bus.find(event, id),
    await: (event, id) => bus.await(event, id, signal),
    blob: (name) => bus.getBlob(name),
    putBlob: (bytes) => bus.putBlob(bytes.slice()),
  }
}
