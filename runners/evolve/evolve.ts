/** A run from beginning to end: model, images, bus, actors, measurements, results; and again after a crash. */
import { join } from 'node:path'
import { evalId, versionId } from '../../actors/ids.ts'
import { openSimilarity, type Similarity } from '../../actors/rewards/similarity.ts'
import { decodeWeights } from '../../actors/weights-codec.ts'
import type { Bus, LogRecord } from '../../bus/bus.ts'
import { accessWith, type Access } from '../../bus/nats/access.ts'
import { blobFolder } from '../../bus/nats/blob-files.ts'
import type { ServerTls } from '../../bus/nats/certificates.ts'
import { keepServer } from '../../bus/nats/keep-server.ts'
import { connectNet } from '../../bus/nats/net.ts'
import { reclaimTasks } from '../../bus/nats/reclaim.ts'
import type { Net } from '../../bus/net.ts'
import { configToYaml } from '../../configs/load.ts'
import type { Config } from '../../configs/schema.ts'
import type { Model } from '../../models/model.ts'
import type { Accuracy, EvolveEvent } from '../cli/events.ts'
import { writeReport } from '../report/write.ts'
import { sayEnded } from './ended.ts'
import { shareCheckpoint } from './base-checkpoint.ts'
import { Closing } from './closing.ts'
import { Guests } from './guests.ts'
import { invitation, isLoopback } from './invitation.ts'
import { Leadership } from './leadership.ts'
import { loadRunModel, writeCheckpoint } from './load.ts'
import { serverTls } from './server-tls.ts'
import { decideRollouts } from './rollouts.ts'
import { NewFolder } from './new-folder.ts'
import { System } from './system.ts'
import { Watch } from './watch.ts'
import { prepareWorld, type RunWorld } from './world.ts'

export interface EvolveOptions {
  readonly show: (event: EvolveEvent) => void
  /** Aborts for an orderly stop; `evolve` then rejects with its reason. */
  readonly signal: AbortSignal
  /** The run exists: go on with it. */
  readonly resume: boolean
}

export type RunConfig = Config & { readonly run: string; readonly out: string }
export type Done = Extract<EvolveEvent, { event: 'done' }>

/** Runs or resumes a run; shows `done` at the end and returns it. */
export async function evolve(asked: RunConfig, options: EvolveOptions): Promise<Done> {
  const started = Date.now()
  const { show, signal, resume } = options
  const closing = new Closing()
  let folder: NewFolder | null = null
  try {
    const tls = await serverTls(asked)
    const similarity = await openSimilarity(asked.similarity)
    const config = await decideRollouts(asked, (message) => show({ event: 'note', message }))
    const model = closing.add(await loadRunModel(config), (m) => m.dispose())
    signal.throwIfAborted()
    if (!resume) folder = await NewFolder.make(config.out, configToYaml(config))
    const world = await prepareWorld(config, config.out, signal)
    const { net, access } = await openNet(config, tls, closing, (message) => show({ event: 'note', message }))
    folder = null
    const done = await play(config, options, { model, similarity, world, net, access, tls, started, closing })
    show(done)
    return done
  } finally {
    await closing.close()
    // What could not start leaves nothing; what was interrupted can be resumed.
    if (!signal.aborted) await folder?.remove()
  }
}

/** `onNote` is told of what takes long, such as installing a server. */
async function openNet(
  { run, out, bus }: RunConfig,
  tls: ServerTls | null,
  closing: Closing,
  onNote: (message: string) => void,
): Promise<{ net: Net; access: Access }> {
  let access: Access
  let blobs: string | null = null
  if (bus.nats === null) {
    const port = bus.port === null ? {} : { port: bus.port }
    const storeDir = join(out, 'nats')
    const options = { storeDir, onNote, host: bus.listen, run, ...port, ...(tls && { tls }) }
    const server = closing.add(await keepServer(options, onNote), (s) => s.stop())
    access = server.access
    if (tls === null && !isLoopback(bus.listen)) onNote(READABLE)
    await reclaimTasks(access, run)
    if (isLoopback(bus.listen) && bus.blobs !== 'server') blobs = blobFolder(storeDir)
  } else {
    access = await accessWith(bus.nats, { creds: bus.creds, ca: bus.tls.ca })
  }
  const options = { ackWaitMs: bus.ackWait * 1000, blobs, readLogOnce: true }
  return { net: closing.add(await connectNet(access, run, options), (net) => net.close()), access }
}

const READABLE =
  'what the machines of this run say to each other can be read in the network: encrypt it with --tls-cert and --tls-key'

/** For everybody who listens to the run: without what the address of the user's own server may hold. */
function shownConfig(config: RunConfig, { url }: Access): RunConfig {
  return config.bus.nats === null ? config : { ...config, bus: { ...config.bus, nats: url } }
}

interface Stage {
  readonly model: Model
  readonly similarity: Similarity
  readonly world: RunWorld
  readonly net: Net
  /** Where it is, for those who want to join. */
  readonly access: Access
  readonly tls: ServerTls | null
  readonly started: number
  readonly closing: Closing
}

async function play(config: RunConfig, { show, signal }: EvolveOptions, stage: Stage): Promise<Done> {
  const { run, out } = config
  const { model, similarity, world, net, access, tls, closing, started } = stage
  const bus = net.connect('evolve.main')
  await bus.putValue('config', shownConfig(config, access))
  await sayEnded(bus, false)
  await shareCheckpoint(bus, config.model.dir, config.bus.nats !== null || !isLoopback(config.bus.listen))
  const from = (await bus.getHead())?.head.version ?? 0
  const about = { model: config.model.dir, device: model.device, recipe: config.recipe, seed: config.seed }
  show({ event: 'start', run, out, ...about, steps: config.steps, from })
  show({ event: 'join', ...invitation(config, access, tls) })
  const guests = closing.add(new Guests(bus, (message) => show({ event: 'note', message })), (g) => g.close())
  show({ event: 'images', source: world.source, used: world.images.length, skipped: world.skipped })
  const watch = new Watch(config, from, show)
  const system = new System({
    config,
    net,
    model,
    base: model.trainable(),
    similarity,
    world,
    record: { dir: out, onRecord: (record) => watch.record(record), onGallery: (lines) => watch.gallery(lines) },
    onWarning: (message, error) => watch.warn(message, error),
  })
  closing.add(system, (s) => s.stop())
  const onNote = (message: string) => show({ event: 'note', message })
  closing.add(new Leadership(bus, { onNote, onSuperseded: () => watch.supersede() }), (l) => l.close())
  system.start()
  const version = await watch.end(signal)
  await system.stop(['supervisor', 'source', 'questioner', 'reasoner', 'judge', 'optimizer'])
  if (version !== config.steps) system.measure(version)
  const measured = await Promise.all(world.sets.map(({ name }) => beforeAfter(bus, name, version, signal)))
  await writeVersion(bus, version, config, signal)
  await system.written(Math.max(0, ...measured.map(({ seq }) => seq)))
  await sayEnded(bus, true)
  await system.stop()
  await writeReport(out)
  await guests.left(GOODBYE_MS)
  const [held, clean] = measured.map(({ before, after }) => ({ before, after }))
  const results = { before: held?.before ?? null, after: held?.after ?? null, clean: clean ?? null }
  const steps = (await bus.getHead())!.head.version
  return { event: 'done', run, version, ...results, steps, seconds: (Date.now() - started) / 1000, out }
}

/** How long the server stays for those who joined to notice the end. */
const GOODBYE_MS = 5000

interface BeforeAfter {
  readonly before: Accuracy
  readonly after: Accuracy
  /** Where the later of the two is in the log. */
  readonly seq: number
}

/** Waits for the measurements of the base and of a version. */
async function beforeAfter(bus: Bus, set: string, version: number, signal: AbortSignal): Promise<BeforeAfter> {
  const [before, after] = await Promise.all([
    bus.await('eval', evalId(0, set), signal),
    bus.await('eval', evalId(version, set), signal),
  ])
  const accuracy = ({ message: { data } }: LogRecord<'eval'>): Accuracy => {
    const { mean1, greedy, maj } = data
    return { mean1, greedy, maj }
  }
  return { before: accuracy(before), after: accuracy(after), seq: Math.max(before.seq, after.seq) }
}

async function writeVersion(bus: Bus, version: number, config: RunConfig, signal: AbortSignal): Promise<void> {
  const { adapter } = (await bus.await('version', versionId(version), signal)).message.data
  const weights = decodeWeights(await bus.getBlob(adapter), adapter)
  await writeCheckpoint(join(config.out, 'checkpoints', 'final'), weights, config)
}
