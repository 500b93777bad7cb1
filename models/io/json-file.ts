import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { CheckpointError } from './checkpoint-error.ts'

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
    throw new CheckpointError('not valid JSON', { file, cause })
  }
  const parsed = schema.safeParse(raw)
  if (!parsed.success) throw new CheckpointError(z.prettifyError(parsed.error), { file, cause: parsed.error })
  return parsed.data
}

/** A UTF-8 file, or undefined when it does not exist. */
export async function readTextIfPresent(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    if (isMissing(cause)) return undefined
    throw new CheckpointError(`cannot be read (${reasonOf(cause)})`, { file, cause })
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
