/** Why a model cannot be had, in one line that says what to place where. */
import { basename } from 'node:path'
import { HubApiError } from '@huggingface/hub'
import { HubCache } from './cache.ts'
import type { HubName } from './name.ts'

export class HubError extends Error {
  override name = 'HubError'
}

/** Bytes that are not those that the hub names. */
export class DamagedFileError extends HubError {}

/** The hub did not answer, or said that it is broken: another time it may. */
export const isAway = (error: unknown): boolean =>
  !(error instanceof HubError) && (!(error instanceof HubApiError) || error.statusCode >= 500)

/** What the user can do without this machine having a network. */
function remedy({ repo, revision }: HubName): string {
  const at = revision === 'main' ? '' : ` --revision ${revision}`
  const { folder } = new HubCache(repo)
  return `on a machine that can reach it: hf download ${repo}${at} (huggingface-cli in older releases), then copy its ~/.cache/huggingface/hub/${basename(folder)} to ${folder}; or name a folder with --model`
}

export const offlineError = (name: HubName): HubError =>
  new HubError(`${spell(name)} is not in the cache, and HF_HUB_OFFLINE forbids to ask for it; ${remedy(name)}`)

/** Turns what went wrong while asking the hub into a HubError. */
export function explain(name: HubName, endpoint: string, error: unknown): HubError {
  if (error instanceof HubError) return error
  if (!(error instanceof HubApiError)) {
    return new HubError(`${spell(name)}: ${endpoint} cannot be reached (${reasonOf(error)}); ${remedy(name)}`, {
      cause: error,
    })
  }
  const { statusCode } = error
  const about = (text: string) => new HubError(`${spell(name)}: ${text}`, { cause: error })
  // The message also holds the address.
  if (/gated|restricted|awaiting|access to model/i.test(JSON.stringify(error.data ?? ''))) {
    return about(
      `${endpoint} gives it only to those who accepted its conditions (${statusCode}): do so at ${endpoint}/${name.repo} and set HF_TOKEN; or ${remedy(name)}`,
    )
  }
  if (statusCode === 401 || statusCode === 403 || statusCode === 404) {
    const there = process.env['HF_TOKEN'] ? 'for your HF_TOKEN' : 'for everybody; a private one needs HF_TOKEN'
    return about(
      `there is no such folder here, and no such model or revision at ${endpoint} ${there} (${statusCode}); check the name, or ${remedy(name)}`,
    )
  }
  return about(`${endpoint} answered ${statusCode} (${oneLine(error.message)}); try again later, or ${remedy(name)}`)
}

export const spell = ({ repo, revision }: HubName): string => (revision === 'main' ? repo : `${repo}@${revision}`)

/** `fetch` hides the reason in causes. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.cause instanceof Error) return reasonOf(error.cause)
  return oneLine((error as NodeJS.ErrnoException).code ?? error.message)
}

const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ').trim()
