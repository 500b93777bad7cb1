import type { FileHandle } from 'node:fs/promises'
import { z } from 'zod'
import { CheckpointError, printable } from './checkpoint-error.ts'
import { openRegularFile } from './regular-file.ts'

/** Largest text file of a checkpoint: a tokenizer of 256,000 tokens has about 35 MB. */
const maxTextBytes = 128 * 2 ** 20
/** The remedy for a damaged file. */
const AGAIN = 'correct it or download the checkpoint again'

/** Read and validate a JSON file of a checkpoint; a `CheckpointError` says which field is wrong. */
export async function readJson<S extends z.ZodType>(file: string, schema: S): Promise<z.output<S>> {
  const value = await readJsonIfPresent(file, schema)
  if (value === undefined)
    throw new CheckpointError('no such file; is this a Hugging Face checkpoint folder?', { file })
  return value
}

/** As `readJson`, but undefined when there is no such file. */
export async function readJsonIfPresent<S extends z.ZodType>(
  file: string,
  schema: S,
): Promise<z.output<S> | undefined> {
  const text = await readTextIfPresent(file)
  return text === undefined ? undefined : parseJson(text, schema, file)
}

/** Parse and validate JSON text; `file` names it in the `CheckpointError`. */
export function parseJson<S extends z.ZodType>(text: string, schema: S, file: string): z.output<S> {
  let raw: unknown
  try {
    raw = JSON.parse(text)
  } catch (cause) {
    throw new CheckpointError(`not valid JSON; ${AGAIN}`, { file, cause })
  }
  const parsed = schema.safeParse(raw)
  if (parsed.success) return parsed.data
  throw new CheckpointError(`${printable(z.prettifyError(parsed.error), 600)}; ${AGAIN}`, { file, cause: parsed.error })
}

/** A UTF-8 file of at most 128 MiB, or undefined when it does not exist. */
export async function readTextIfPresent(file: string): Promise<string | undefined> {
  let handle: FileHandle | undefined
  let bytes: Uint8Array
  try {
    handle = await openRegularFile(file)
    const { size } = await handle.stat()
    if (size > maxTextBytes) throw new RangeError(`${size} bytes are more than the ${maxTextBytes} of any real one`)
    bytes = await handle.readFile()
  } catch (cause) {
    if (isMissing(cause)) return undefined
    throw new CheckpointError(`cannot be read (${reasonOf(cause)}); ${AGAIN}`, { file, cause })
  } finally {
    await handle?.close()
  }
  return decodeUtf8(bytes, 'the file', file)
}

/** Text of bytes that must be UTF-8; `what` and `file` name them in the `CheckpointError`. */
export function decodeUtf8(bytes: Uint8Array, what: string, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new CheckpointError(`${what} is not UTF-8; ${AGAIN}`, { file, cause })
  }
}

/** Is this the error of a path that does not exist? */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

/** The message of whatever was thrown. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
