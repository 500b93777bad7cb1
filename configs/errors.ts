/** Errors of the configuration, in one line: the key, the value, what is allowed and where it was set. */
import type { z } from 'zod'
import { configKeys } from './keys.ts'
import { withoutSecrets } from './secrets.ts'
import { nearest } from './suggest.ts'

export class ConfigError extends Error {
  override name = 'ConfigError'
}

/** One line for one zod issue; `at` looks a value up in what was given, `source` says who gave it. */
export function explainIssue(
  issue: z.core.$ZodIssue,
  at: (key: string) => unknown,
  source: (key: string) => string | undefined,
): string {
  const path = issue.path.join('.')
  if (issue.code === 'unrecognized_keys') {
    const unknown = issue.keys[0]!
    const key = path === '' ? unknown : `${path}.${unknown}`
    return `unknown key "${key}"${from(source(key))}${suggestKey(path, unknown)}`
  }
  const key = knownKey(path)
  const allowed = configKeys().get(key)?.allowed ?? issue.message
  const line = `${key} = ${JSON.stringify(at(key)) ?? 'nothing'} is not allowed${from(source(key))}; it takes ${allowed}${more(issue)}`
  return withoutSecrets(line)
}

const from = (source: string | undefined): string => (source === undefined ? '' : ` (from ${source})`)

/** The longest part of a path that is a key of its own: `optimizer.betas.1` → `optimizer.betas`. */
function knownKey(path: string): string {
  if (path === '' || configKeys().has(path)) return path
  const parent = path.split('.').slice(0, -1).join('.')
  return parent === '' ? path : knownKey(parent)
}

/** A pattern or a custom check says more than its type does. */
function more(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_format' && issue.format === 'includes') {
    return ` with ${(issue as z.core.$ZodIssueStringIncludes).includes} in it`
  }
  return issue.code === 'invalid_format' || issue.code === 'custom' ? `: ${issue.message}` : ''
}

/** Looks among the siblings first, then for the same word anywhere (`--set lr=…` → optimizer.lr). */
function suggestKey(section: string, unknown: string): string {
  const prefix = section === '' ? '' : `${section}.`
  const keys = [...configKeys().keys()]
  const siblings = keys
    .filter((k) => k.startsWith(prefix))
    .map((k) => k.slice(prefix.length))
    .filter((k) => !k.includes('.'))
  const elsewhere = keys.find((k) => k.endsWith(`.${unknown}`))
  if (elsewhere !== undefined) return ` (did you mean "${elsewhere}"?)`
  const near = nearest(unknown, siblings)
  if (near !== null) return ` (did you mean "${prefix}${near}"?)`
  return `; ${section === '' ? 'there are' : `${section} has`} ${siblings.join(', ')}`
}
