/** Runs an actor of the user's in a run, until the run ends or it is told to leave. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Ports } from '../../actors/ports.ts'
import { replacedBy, startOwnActor } from '../../actors/own/start.ts'
import type { OwnActor } from '../../actors/own/define.ts'
import { createJudge } from '../../actors/rewards/recipes/registry.ts'
import { openSimilarity } from '../../actors/rewards/similarity.ts'
import type { Access } from '../../bus/nats/access.ts'
import { Closing } from '../evolve/closing.ts'
import { hasEnded } from '../evolve/ended.ts'
import { instanceOf } from '../evolve/instance.ts'
import { enterRun, LOOK_MS } from '../join/enter.ts'

export interface InjectOptions {
  readonly access: Access
  readonly run: string
  readonly actor: OwnActor
  readonly show: (event: InjectEvent) => void
  readonly signal: AbortSignal
}

export type InjectEvent =
  | { readonly event: 'joined'; readonly run: string; readonly actor: string; readonly replaces: string | null }
  | { readonly event: 'note'; readonly message: string }
  | { readonly event: 'done'; readonly run: string }

export async function inject({ access, run, actor, show, signal }: InjectOptions): Promise<void> {
  const closing = new Closing()
  try {
    const { net, bus, config } = await enterRun(access, run, 'guest', closing)
    const instance = instanceOf(actor.role)
    const replaces = replacedBy(actor)
    const { name, version } = actor
    const onWarning = (message: string, error: unknown) =>
      show({ event: 'note', message: `${message}: ${(error as Error).message}` })
    const ports = new Ports(net.connect(instance), {
      onWarning,
      ...(replaces && { replaces: { instance, name, version } }),
    })
    const running = startOwnActor(ports, actor, {
      config,
      similarity: await openSimilarity(config.similarity),
      recipe: createJudge(config.recipe, config.recipes[config.recipe]),
      images: config.groups.images,
      log: (message) => show({ event: 'note', message }),
    })
    closing.add(running, (a) => a.stop())
    show({ event: 'joined', run, actor: `${name} ${version}`, replaces })
    let broke: Error | null = null
    running.done.catch((error: unknown) => (broke = error as Error))
    while (!(await hasEnded(bus))) {
      if (broke) throw broke
      await sleep(LOOK_MS, undefined, { signal }).catch(() => signal.throwIfAborted())
    }
    show({ event: 'done', run })
  } finally {
    await closing.close()
  }
}
