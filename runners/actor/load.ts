/** The user's file of an actor. */
import { existsSync } from 'node:fs'
import { register } from 'node:module'
import { pathToFileURL } from 'node:url'
import { checkActor } from '../../actors/own/check.ts'
import type { OwnActor } from '../../actors/own/define.ts'
import { UsageError } from '../cli/fail.ts'

/** Throws UsageError in one line that names the file. */
export async function loadActor(file: string): Promise<OwnActor> {
  if (!existsSync(file)) throw new UsageError(`there is no file ${file}; make one with visplay actor --new judge`)
  register('./resolve.mjs', import.meta.url)
  try {
    const module = (await import(pathToFileURL(file).href)) as { readonly default?: unknown }
    return checkActor(module.default)
  } catch (cause) {
    throw new UsageError(`${file}: ${(cause as Error).message}`, { cause })
  }
}
