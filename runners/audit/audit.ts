/** The proof of a run: its log, the moves of its head, its blobs and its updates against every invariant. */
import { Audit, type Violation } from '../../actors/audit.ts'
import { versionId } from '../../actors/ids.ts'
import { BlobError, MissingBlobError, type HeadEntry } from '../../bus/bus.ts'
import { parseEnvelope } from '../../bus/codec.ts'
import { headSchema, type EventData } from '../../bus/messages.ts'
import type { Tap } from '../../bus/nats/tap.ts'
import { HEAD_KEY } from '../../bus/subjects.ts'
import type { Config } from '../../configs/schema.ts'
import { assembleOptions } from '../evolve/assemble-options.ts'
import { openReplay } from '../replay/open-replay.ts'
import { isReplayed } from '../replay/replay.ts'
import { readLog } from '../tap/records.ts'

export interface AuditResult {
  readonly violations: readonly Violation[]
  readonly records: number
  /** Newest committed version; null before version 0. */
  readonly version: number | null
  readonly epoch: number
  readonly verdicts: number
  readonly dropped: number
  readonly dead: number
}

export async function auditRun(tap: Tap, config: Config, signal: AbortSignal): Promise<AuditResult> {
  const { questioner, reasoner } = assembleOptions(config).roleWeights
  const audit = new Audit({ trains: { questioner: questioner !== 0, reasoner: reasoner !== 0 } })
  const replay = await openReplay(config, config.recipe)
  const violations: Violation[] = []
  const versions: EventData<'version'>[] = []
  const counts = { verdict: 0, dropped: 0, dead: 0 }
  let records = 0
  const onProblem = (seq: number, problem: string) =>
    violations.push({ invariant: 'readable', about: `record ${seq}`, message: problem })
  for await (const record of readLog(tap, { to: Infinity, signal, onProblem })) {
    records++
    audit.apply(record)
    if (record.event in counts) counts[record.event as keyof typeof counts]++
    if (record.event === 'version') versions.push(record.message.data)
    const step = isReplayed(record) ? await replay.apply(record) : null
    if (step && !step.sameUpdate) {
      const message = `version ${step.step} was not made from the verdicts that the log has`
      violations.push({ invariant: 'update-follows', about: versionId(step.step), message })
    }
  }
  violations.push(...audit.finish(await headsOf(tap)), ...(await checkBlobs(tap, versions)))
  const last = versions.at(-1)
  const { verdict: verdicts, dropped, dead } = counts
  return { violations, records, version: last?.weights ?? null, epoch: last?.epoch ?? 0, verdicts, dropped, dead }
}

async function headsOf(tap: Tap): Promise<HeadEntry[]> {
  const moves = await tap.history(HEAD_KEY)
  return moves.map(({ bytes, revision }) => ({ head: headSchema.parse(parseEnvelope(bytes, HEAD_KEY).data), revision }))
}

/** Old versions are removed in time; what is there must be whole. */
async function checkBlobs(tap: Tap, versions: readonly EventData<'version'>[]): Promise<Violation[]> {
  const violations: Violation[] = []
  for (const { weights, adapter, optimizer } of versions) {
    const newest = weights === versions.at(-1)!.weights
    for (const [what, blob] of Object.entries({ adapter, optimizer })) {
      await tap.getBlob(blob).catch((error: unknown) => {
        if (!(error instanceof BlobError)) throw error
        if (error instanceof MissingBlobError && !newest) return
        violations.push({ invariant: 'blobs', about: versionId(weights), message: `its ${what}: ${error.message}` })
      })
    }
  }
  return violations
}
