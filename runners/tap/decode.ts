/** Messages of a run as a person or a program reads them. */
import { imagesOf } from '../../actors/ids.ts'
import { decode, type BlobStore } from '../../bus/codec.ts'
import { eventSchemas, liveSchemas, taskSchemas } from '../../bus/messages.ts'
import type { Gap, Heard } from '../../bus/nats/tap.ts'
import type { z } from 'zod'

/** One line of `tap --json`. */
export type TapLine =
  | {
      readonly subject: string
      readonly seq: number | null
      readonly at: string
      readonly by: string
      readonly schema: string
      readonly traceparent: string
      readonly data: unknown
    }
  | { readonly subject: string; readonly seq: number | null; readonly problem: string }
  | { readonly gap: string }

const SCHEMAS: Readonly<Record<string, Readonly<Record<string, z.ZodType>>>> = {
  task: taskSchemas,
  log: eventSchemas,
  live: liveSchemas,
}

/** Checked by its schema; what does not fit is shown with the reason, never left out. */
export async function decodeHeard(heard: Heard | Gap, blobs: Pick<BlobStore, 'getBlob'>): Promise<TapLine> {
  if (heard.kind === 'gap') return { gap: heard.reason }
  const { subject, seq, bytes } = heard
  const { family, name } = nameOf(subject)
  const schema = SCHEMAS[family]?.[name]
  if (!schema) return { subject, seq, problem: `no message of visplay has this subject` }
  try {
    const message = await decode(name, schema, bytes, subject, blobs)
    const { at, by, traceparent, data } = message
    return { subject, seq, at, by, schema: name, traceparent, data }
  } catch (error) {
    return { subject, seq, problem: (error as Error).message }
  }
}

/** `task.{role.what}.{id}`, `log.{event}.{id}`, `live.{role}.{instance}.{kind}` after `visplay.{run}.` */
function nameOf(subject: string): { family: string; name: string } {
  const [family = '', ...rest] = subject.split('.').slice(2)
  return { family, name: family === 'live' ? (rest.at(-1) ?? '') : rest.slice(0, -1).join('.') }
}

/**
 * Keeps what belongs to an id or to a trace: also everything of the traces in which the id was met, but for what is about
 * other images than the id, which came with it in one task.
 */
export function belongsTo(wanted: string): (line: TapLine) => boolean {
  const traces = new Set<string>()
  const [image = null, ...more] = imagesOf(wanted)
  const isAbout = (images: readonly string[]) => image === null || more.length > 0 || images.includes(image)
  return (line) => {
    if ('gap' in line) return true
    const id = line.subject.split('.').at(-1)!
    const trace = 'traceparent' in line ? line.traceparent.split('-')[1]! : null
    const images = imagesOf(id)
    const named = id === wanted || id.includes(`${wanted}-`) || id.endsWith(`-${wanted}`)
    const met = named || trace === wanted || (image !== null && images.length > 1 && isAbout(images))
    if (met && trace !== null) traces.add(trace)
    return met || (trace !== null && traces.has(trace) && (images.length === 0 || isAbout(images)))
  }
}

/** One line for the terminal: time, place in the log, subject, sender, and the data as far as it fits. */
export function lineOf(line: TapLine, columns: number): string {
  if ('gap' in line) return `--- ${line.gap} ---`
  const place = line.seq === null ? '' : ` #${line.seq}`
  const subject = line.subject.split('.').slice(2).join('.')
  const text =
    'problem' in line
      ? `?${place} ${subject}: ${line.problem}`
      : `${line.at.slice(11, 23)}${place} ${subject} ${line.by} ${JSON.stringify(line.data)}`
  return text.length <= columns ? text : `${text.slice(0, Math.max(0, columns - 1))}…`
}
