/**
 * What can be made to go wrong inside one process, at a chosen place: the program itself knows nothing of it. Methods of
 * its classes and of Node are wrapped before it starts.
 */
import { JetStreamClientImpl } from '@nats-io/jetstream/internal'
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { TrainingJob } from '../../actors/training-job.ts'
import { CarriedBus } from '../../bus/carried-bus.ts'

/** Where an Optimizer can die. */
export const FAILPOINTS = [
  'training',
  'file',
  'server-blob',
  'before-cas',
  'after-cas',
  'before-record',
  'checkpoint',
] as const
export type Failpoint = (typeof FAILPOINTS)[number]

const misfortuneSchema = z.strictObject({
  /** Kill -9 of this process at a point of the update of `step`. */
  die: z.strictObject({ at: z.enum(FAILPOINTS), step: z.number().int().min(1) }).optional(),
  /** It stands still, as if stopped from outside, with everything ready for the move of the head of this step. */
  freeze: z.strictObject({ step: z.number().int().min(1) }).optional(),
  /** Its clock is wrong by this many milliseconds. */
  clock: z.number().int().optional(),
  /** Its event loop stands still for `ms` every `every` milliseconds. */
  block: z.strictObject({ every: z.number().int(), ms: z.number().int() }).optional(),
  /** Its disk takes no blob while there is a file of this path. */
  full: z.string().optional(),
  /** Every update takes this many milliseconds longer. */
  slow: z.number().int().optional(),
})
export type Misfortune = z.infer<typeof misfortuneSchema>

export function strike(text: string | undefined): void {
  const { die, freeze, clock, block, full, slow } = misfortuneSchema.parse(JSON.parse(text ?? '{}'))
  if (die) dieAt(die.at, die.step)
  if (freeze) freezeBeforeCas(freeze.step)
  if (clock !== undefined) shiftClock(clock)
  if (block) blockEventLoop(block)
  if (full !== undefined) fillDisk(full)
  if (slow !== undefined) slowDown(slow)
}

function dieNow(): Promise<never> {
  process.kill(process.pid, 'SIGKILL')
  return new Promise(() => {})
}

/** Replaces a method by one that gets the old one. */
function wrap<T extends object, K extends keyof T>(on: T, name: K, how: (old: T[K]) => T[K]): void {
  on[name] = how(on[name])
}

const FULL_CHUNK = 512 * 1024

/** Tells which step is being committed, 0 for none. */
function watchCommits(): () => number {
  let committing = 0
  wrap(
    TrainingJob.prototype,
    'commit',
    (old) =>
      async function (this: TrainingJob, of, epoch) {
        committing = of
        return old.call(this, of, epoch).finally(() => (committing = 0))
      },
  )
  return () => committing
}

function freezeBeforeCas(step: number): void {
  const committing = watchCommits()
  let frozen = false
  wrap(
    CarriedBus.prototype,
    'moveHead',
    (old) =>
      async function (this: CarriedBus, head, expected) {
        if (committing() === step && !frozen) {
          frozen = true
          process.kill(process.pid, 'SIGSTOP')
        }
        return old.call(this, head, expected)
      },
  )
}

function dieAt(at: Failpoint, step: number): void {
  const committing = watchCommits()
  if (at === 'training') {
    const publish: unknown = Reflect.get(CarriedBus.prototype, 'publish')
    const dying = async function (this: CarriedBus, kind: string, id: string, ...rest: unknown[]): Promise<void> {
      await (publish as (...args: unknown[]) => Promise<void>).call(this, kind, id, ...rest)
      if (kind === 'model.gradient' && id.startsWith(`s${step}-`)) await dieNow()
    }
    Object.assign(CarriedBus.prototype, { publish: dying })
  }
  if (at === 'before-cas' || at === 'after-cas') {
    wrap(
      CarriedBus.prototype,
      'moveHead',
      (old) =>
        async function (this: CarriedBus, head, expected) {
          if (committing() !== step) return old.call(this, head, expected)
          if (at === 'before-cas') return dieNow()
          await old.call(this, head, expected)
          return dieNow()
        },
    )
  }
  if (at === 'before-record') {
    wrap(
      TrainingJob.prototype,
      'record',
      (old) =>
        async function (this: TrainingJob, of) {
          return of === step ? dieNow() : old.call(this, of)
        },
    )
  }
  if (at === 'file') dieInFile(() => committing() === step)
  if (at === 'server-blob') dieInBlob(() => committing() === step)
  if (at === 'checkpoint') dieInCheckpoint()
}

/** After the second whole chunk: some of the blob is on the server, most of it is not. */
function dieInBlob(when: () => boolean): void {
  let chunks = 0
  wrap(
    JetStreamClientImpl.prototype,
    'publish',
    (old) =>
      async function (this: JetStreamClientImpl, subject, payload, options) {
        const sent = await old.call(this, subject, payload, options)
        if (when() && payload?.length === FULL_CHUNK && ++chunks === 2) await dieNow()
        return sent
      },
  )
}

/** Wraps the opening of the files that become blobs when they are whole. */
function wrapBlobFiles(how: (open: () => Promise<fs.promises.FileHandle>) => Promise<fs.promises.FileHandle>): void {
  const { open } = fs.promises
  fs.promises.open = (path, ...rest) => {
    const opening = () => open(path, ...rest)
    return String(path).endsWith('.partial') ? how(opening) : opening()
  }
  syncBuiltinESMExports()
}

/** After half of the bytes of a blob. */
function dieInFile(when: () => boolean): void {
  wrapBlobFiles(async (opening) => {
    const file = await opening()
    if (!when()) return file
    const write = file.write.bind(file) as (...args: readonly unknown[]) => Promise<unknown>
    const dying = async (bytes: Uint8Array, at: number, length: number, position: number) => {
      await write(bytes, at, Math.floor(length / 2), position)
      return dieNow()
    }
    return Object.assign(file, { write: dying })
  })
}

function fillDisk(sign: string): void {
  wrapBlobFiles((opening) => {
    if (!fs.existsSync(sign)) return opening()
    return Promise.reject(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' }))
  })
}

/** Between the files of the checkpoint and the rename that makes it whole. */
function dieInCheckpoint(): void {
  const { rename } = fs.promises
  fs.promises.rename = (from, to) => (/checkpoints.final$/.test(String(to)) ? dieNow() : rename(from, to))
  syncBuiltinESMExports()
}

function shiftClock(ms: number): void {
  const Real = Date
  class Shifted extends Real {
    constructor(...args: [] | [string | number | Date]) {
      super(args.length === 0 ? Real.now() + ms : args[0])
    }
    static override now(): number {
      return Real.now() + ms
    }
  }
  globalThis.Date = Shifted as DateConstructor
}

function blockEventLoop({ every, ms }: { readonly every: number; readonly ms: number }): void {
  setInterval(() => {
    const end = performance.now() + ms
    while (performance.now() < end);
  }, every).unref()
}

function slowDown(ms: number): void {
  wrap(
    TrainingJob.prototype,
    'update',
    (old) =>
      async function (this: TrainingJob, step, signal) {
        await sleep(ms, undefined, { signal })
        return old.call(this, step, signal)
      },
  )
}
