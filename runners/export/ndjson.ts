/** The log of a run as JSON lines. */
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import type { AnyRecord } from '../tap/records.ts'

/** To a file that appears complete or not at all, or to stdout (null). Returns how many. */
export async function writeNdjson(records: AsyncIterable<AnyRecord>, file: string | null): Promise<number> {
  const stream: NodeJS.WritableStream = file === null ? process.stdout : createWriteStream(`${file}.partial`)
  let count = 0
  try {
    for await (const { seq, event, id, message } of records) {
      const { at, by, traceparent, data } = message
      const line = JSON.stringify({ seq, event, id, at, by, traceparent, data })
      if (!stream.write(`${line}\n`)) await once(stream, 'drain')
      count++
    }
    if (file === null) return count
    stream.end()
    await once(stream, 'finish')
    await rename(`${file}.partial`, file)
  } catch (error) {
    if (file !== null) await rm(`${file}.partial`, { force: true })
    throw error
  }
  return count
}
