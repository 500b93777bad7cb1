/**
 * Recorder: writes what a run leaves for people and tools (run-files.ts), from the log alone, and raises alarms. It
 * rewrites its files from the beginning of the log when it starts, so that a crash leaves neither gaps nor halves.
 */
import { mkdir, open, writeFile, type FileHandle } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { fromPromise, setup } from 'xstate'
import type { EventData } from '../bus/messages.ts'
import { createAlarms, type AlarmMetrics } from './alarms.ts'
import { galleryLine, pickGroups } from './gallery.ts'
import type { Ports, RecordOf } from './ports.ts'
import { effect, unprovidedJob } from './unprovided.ts'
import { runActor, type RunActor } from './run-actor.ts'
import type { GalleryLine } from './run-files.ts'
import { StepBook, type StepBatch } from './step-book.ts'

const EVENTS = ['questions', 'answers', 'verdict', 'dead', 'step', 'eval', 'alarm', 'version'] as const
export type RecorderRecord = RecordOf<(typeof EVENTS)[number]>

export interface RecorderOptions {
  /** Folder of the run; must exist. */
  readonly dir: string
  /** Thresholds (alarms.ts). */
  readonly alarms: unknown
  /** Images of a step, assumed until the log says it. */
  readonly images: number
  /** Questions of each step that go into the gallery. */
  readonly galleryPerStep?: number
  /** Told of every record in order, those of before a resume too. */
  readonly onRecord?: (record: RecorderRecord) => void
  /** Told of the gallery of every step. */
  readonly onGallery?: (lines: readonly GalleryLine[]) => void
}

export interface Recorder extends RunActor {
  /** Resolves when everything up to a sequence number of the log is written. */
  written(seq: number): Promise<void>
}

export const recorderMachine = setup({
  types: { events: {} as { type: 'stop' } },
  actors: { record: unprovidedJob<unknown>('record') },
  actions: { warn: effect<{ error: unknown }>() },
}).createMachine({
  id: 'recorder',
  on: { stop: '.stopped' },
  initial: 'recording',
  states: {
    recording: {
      invoke: {
        src: 'record',
        onDone: 'stopped',
        onError: { target: 'failed', actions: { type: 'warn', params: ({ event }) => ({ error: event.error }) } },
      },
    },
    /** A full disk must not end the run: the log has everything, and is written out again. */
    failed: { after: { 5000: 'recording' } },
    stopped: { type: 'final' },
  },
})

/** Starts a Recorder on a bus. */
export function recorder(ports: Ports, options: RecorderOptions): Recorder {
  const progress = new Progress()
  const machine = recorderMachine.provide({
    actors: {
      record: fromPromise(async ({ signal }) => {
        const writer = await RunWriter.open(ports, options)
        try {
          await ports.follow(EVENTS, signal, async (record) => {
            await writer.write(record)
            progress.reached(record.seq)
          })
        } finally {
          await writer.close()
        }
      }),
    },
    actions: { warn: (_, { error }) => ports.warn('writing the files of the run', error) },
  })
  return { ...runActor('recorder', machine, ports), written: (seq) => progress.until(seq) }
}

/** How far the log is written. */
class Progress {
  #seq = 0
  #waiting: { readonly seq: number; resolve(): void }[] = []

  reached(seq: number): void {
    this.#seq = Math.max(this.#seq, seq)
    for (const { resolve } of this.#waiting.filter((waiter) => waiter.seq <= this.#seq)) resolve()
    this.#waiting = this.#waiting.filter((waiter) => waiter.seq > this.#seq)
  }

  until(seq: number): Promise<void> {
    if (seq <= this.#seq) return Promise.resolve()
    return new Promise((resolve) => this.#waiting.push({ seq, resolve }))
  }
}

class RunWriter {
  readonly #ports: Ports
  readonly #options: RecorderOptions
  readonly #metrics: FileHandle
  readonly #gallery: FileHandle
  readonly #book: StepBook
  readonly #alarms
  readonly #pictures = new Map<string, string>()
  /** Held-out figures that no step has carried to the alarms yet. */
  #probe: AlarmMetrics = {}

  constructor(ports: Ports, options: RecorderOptions, metrics: FileHandle, gallery: FileHandle) {
    this.#ports = ports
    this.#options = options
    this.#metrics = metrics
    this.#gallery = gallery
    this.#book = new StepBook(options.images)
    this.#alarms = createAlarms(options.alarms)
  }

  static async open(ports: Ports, options: RecorderOptions): Promise<RunWriter> {
    await mkdir(join(options.dir, PICTURES), { recursive: true })
    const metrics = await open(join(options.dir, 'metrics.jsonl'), 'w')
    return new RunWriter(ports, options, metrics, await open(join(options.dir, 'gallery.jsonl'), 'w'))
  }

  async close(): Promise<void> {
    await Promise.all([this.#metrics.close(), this.#gallery.close()])
  }

  async write(record: RecorderRecord): Promise<void> {
    switch (record.event) {
      case 'questions':
      case 'answers':
      case 'verdict':
        this.#book.apply(record)
        return
      case 'dead':
        this.#book.apply(record)
        await this.#writeMetrics(record)
        break
      case 'eval':
        if (record.message.data.probe) this.#noteProbe(record.message.data)
        await this.#writeMetrics(record)
        break
      case 'alarm':
        await this.#writeMetrics(record)
        break
      case 'step':
        await this.#writeMetrics(record)
        await this.#writeStep(record.message.data)
        break
      case 'version':
    }
    this.#options.onRecord?.(record)
  }

  async #writeMetrics({ event, message }: RecorderRecord): Promise<void> {
    await this.#metrics.write(`${JSON.stringify({ event, at: message.at, ...message.data })}\n`)
  }

  #noteProbe({ mean1, greedy, maj }: EventData<'eval'>): void {
    this.#probe = { 'eval/mean1': mean1, 'eval/greedy': greedy, 'eval/maj': maj }
  }

  async #writeStep({ step, metrics }: EventData<'step'>): Promise<void> {
    await this.#writeGallery(this.#book.batch(step))
    this.#book.forgetBefore(step + 1)
    const raised = this.#alarms.observe(step, { ...metrics, ...this.#probe })
    this.#probe = {}
    for (const alarm of raised) await this.#ports.bus.append('alarm', `${alarm.name}-s${step}`, alarm)
  }

  async #writeGallery(batch: StepBatch): Promise<void> {
    const lines: GalleryLine[] = []
    for (const { image, question } of pickGroups(batch, this.#options.galleryPerStep ?? 16)) {
      const line = galleryLine(batch, image, question, await this.#picture(image.image, image.name))
      if (line) lines.push(line)
    }
    await this.#gallery.write(lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
    this.#options.onGallery?.(lines)
  }

  /** Path of a picture relative to the folder of the run; copied there once. */
  async #picture(blob: string, name: string): Promise<string> {
    const known = this.#pictures.get(blob)
    if (known !== undefined) return known
    const path = `${PICTURES}/${blob.slice('sha256-'.length).slice(0, 16)}${extname(name).toLowerCase()}`
    const bytes = await this.#ports.bus.getBlob(blob)
    await writeFile(join(this.#options.dir, path), bytes)
    this.#pictures.set(blob, path)
    return path
  }
}

/** Folder of the gallery's pictures. */
const PICTURES = 'gallery'
