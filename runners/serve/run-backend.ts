/** The model actors of a run: questions become `model.generate` tasks, which they serve between their own work. */
import { createHash } from 'node:crypto'
import { DeadTaskError } from '../../actors/dead-tasks.ts'
import { versionId } from '../../actors/ids.ts'
import type { Ports } from '../../actors/ports.ts'
import { BlobError } from '../../bus/bus.ts'
import type { Task } from '../../bus/messages.ts'
import type { Tokenizer } from '../../models/io/tokenizer.ts'
import { ApiError } from './api-error.ts'
import type { Answered, Ask, Backend } from './backend.ts'
import { unknownModel } from './local-backend.ts'

type Generate = Task<'model.generate'>

/** Batches on the queue at once: the actors order them. */
const PARALLEL = 16

/** Clients ask for `RUN` (the newest version) or `RUN@VERSION`; a reply names the version that answered. */
export function runBackend(ports: Ports, tokenizer: Tokenizer, signal: AbortSignal): Backend {
  const { bus } = ports
  const { run } = bus
  const kept = new Set<number>()

  async function head(): Promise<number> {
    const entry = await bus.getHead()
    if (entry === null) throw new ApiError(503, 'not_ready', `run ${run} has no version yet; ask again in a moment`)
    return entry.head.version
  }

  /** null = the newest. */
  async function versionOf(model: string): Promise<number | null> {
    if (model === run) return null
    const version = model.startsWith(`${run}@`) ? /^\d+$/.exec(model.slice(run.length + 1))?.[0] : undefined
    const newest = await head()
    if (version === undefined || Number(version) > newest) {
      throw unknownModel(model, [run, `${run}@0 (its base) to ${run}@${newest}, as far as they are kept`])
    }
    await mustBeKept(Number(version))
    return Number(version)
  }

  /** Of old versions only the best and the last few are kept; actors asked for another would give up in the end. */
  async function mustBeKept(version: number): Promise<void> {
    if (kept.has(version)) return
    const record = await bus.find('version', versionId(version))
    try {
      if (record) await bus.getBlob(record.message.data.adapter)
    } catch (error) {
      if (!(error instanceof BlobError)) throw error
      throw unknownModel(`${run}@${version}`, [`${run}; the weights of version ${version} are not kept`])
    }
    kept.add(version)
  }

  async function taskOf(ask: Ask): Promise<{ id: string; task: Omit<Generate, 'cohort'> }> {
    const { picture, prompt, samples, maxNewTokens, temperature, seed } = ask
    const weights = await versionOf(ask.model)
    const minWeights = weights ?? (await head())
    const image = picture && (await bus.putBlob(picture.bytes))
    const task = { image, prompt, samples, maxNewTokens, temperature, seed, minWeights, weights }
    // The same question about the same version has the same answer: it may be in the log.
    const hash = createHash('sha256').update(JSON.stringify(task)).digest('hex')
    return { id: `serve-${hash.slice(0, 32)}`, task }
  }

  async function request(id: string, task: Generate): Promise<Answered> {
    const { message } = await ports.request('model.generate', id, task, { signal, again: true })
    const { weights, promptTokens, completions } = message.data
    return { model: `${run}@${weights}`, generated: { promptTokens, samples: completions } }
  }

  return {
    parallel: PARALLEL,
    async models() {
      const newest = (await bus.getHead())?.head.version
      return [run, `${run}@0`, ...(newest ? [`${run}@${newest}`] : [])]
    },
    check: async (model) => void (await versionOf(model)),
    async answer(asks) {
      const tasks = await Promise.all(asks.map((ask) => taskOf(ask).catch((e: unknown) => e as Error)))
      const ids = new Set(tasks.flatMap((t) => (t instanceof Error ? [] : [t.id])))
      // The actors need not wait for more than these.
      const cohort = {
        id: `serve-${createHash('sha256')
          .update([...ids].join())
          .digest('hex')
          .slice(0, 16)}`,
        size: ids.size,
      }
      return Promise.all(
        tasks.map((t) =>
          t instanceof Error ? t : request(t.id, { ...t.task, cohort }).catch((e: unknown) => asGivenUp(e, run)),
        ),
      )
    },
    tokenText: (token) => tokenizer.decode([token], { skipSpecialTokens: false }),
    close: () => Promise.resolve(),
  }
}

function asGivenUp(error: unknown, run: string): Error {
  if (error instanceof DeadTaskError)
    return new ApiError(500, 'given_up', `the model actors of run ${run} gave it up: ${error.message}`, null, {
      cause: error,
    })
  return error instanceof Error ? error : new Error(String(error))
}
