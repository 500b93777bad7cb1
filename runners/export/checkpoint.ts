/** A version of a run as a checkpoint for other tools: transformers, PEFT, visplay itself. */
import { decodeWeights } from '../../actors/weights-codec.ts'
import type { EventData } from '../../bus/messages.ts'
import type { Tap } from '../../bus/nats/tap.ts'
import type { Config } from '../../configs/schema.ts'
import { UsageError } from '../cli/fail.ts'
import { writeCheckpoint } from '../evolve/load.ts'
import { writeOnnxExport } from './onnx.ts'
import { readLog } from '../tap/records.ts'

export interface ExportCheckpointOptions {
  readonly config: Config
  readonly format: 'peft' | 'merged' | 'onnx'
  /** null = the newest. */
  readonly version: number | null
  readonly out: (version: number) => string
  readonly signal: AbortSignal
  /** Told of the share that is written, where it takes long. */
  readonly onProgress?: (share: number) => void
}

/** Writes the folder and returns it, with the version. Throws UsageError for a version that is not kept. */
export async function exportCheckpoint(
  tap: Tap,
  { config, format, version, out, signal, onProgress }: ExportCheckpointOptions,
): Promise<{ dir: string; version: number }> {
  if (format === 'peft' && config.model.train !== 'lora') {
    throw new UsageError(`the run trains ${config.model.train} weights, not an adapter: use --format merged`)
  }
  const versions = await versionsOf(tap, signal)
  const wanted = version === null ? versions.at(-1) : versions.find((v) => v.weights === version)
  if (!wanted) throw new UsageError(`the run has no version ${version ?? 'yet'}; it has ${range(versions)}`)
  const { weights, adapter } = wanted
  const bytes = await tap.getBlob(adapter).catch((cause: unknown) => {
    throw new UsageError(`version ${weights} is not kept any more (keepVersions); choose a newer one`, { cause })
  })
  const dir = out(weights)
  const trained = decodeWeights(bytes, adapter)
  if (format === 'onnx') {
    const lora = config.model.train === 'lora' ? config.model.lora : null
    await writeOnnxExport(
      dir,
      config.model.dir,
      { lora, weights: trained },
      { signal, ...(onProgress && { onProgress }) },
    )
  } else await writeCheckpoint(dir, trained, config, format === 'peft' ? 'trained' : 'whole')
  return { dir, version: weights }
}

async function versionsOf(tap: Tap, signal: AbortSignal): Promise<EventData<'version'>[]> {
  const found: EventData<'version'>[] = []
  const event = 'version'
  for await (const record of readLog(tap, { to: Infinity, event, signal, onProblem: () => {} })) {
    if (record.event === event) found.push(record.message.data)
  }
  return found
}

const range = (versions: readonly EventData<'version'>[]): string =>
  versions.length === 0 ? 'none' : `0 to ${versions.at(-1)!.weights}`
