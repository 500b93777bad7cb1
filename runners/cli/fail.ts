/** Errors as people see them: one line on stderr, the stack only with `--verbose`. */
import { Interrupted } from './interrupt.ts'

/** A mistake in how a command was called; exit code 2. */
export class UsageError extends Error {
  override name = 'UsageError'
}

/** Writes `visplay: …` and sets the exit code: 2 for a wrong call or configuration, 130/143 after Ctrl-C, else 1. */
export function fail(error: unknown, verbose: boolean): void {
  if (error instanceof Interrupted) {
    process.exitCode = error.exitCode
    return
  }
  process.stderr.write(`visplay: ${oneLine(error)}\n`)
  if (verbose && error instanceof Error) process.stderr.write(`${withCauses(error)}\n`)
  const usage = error instanceof Error && ['UsageError', 'ConfigError'].includes(error.name)
  process.exitCode = usage ? 2 : 1
}

/** The message without line breaks; what the operating system says only in capitals gets words and a remedy. */
export function oneLine(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { code, path } = error as NodeJS.ErrnoException
  const system = code === undefined ? undefined : SYSTEM[code]?.(path ?? 'a file')
  return (system ?? (error.message || error.name)).replaceAll(/\s*\n\s*/g, ' ').trim()
}

const SYSTEM: Readonly<Record<string, (path: string) => string>> = {
  ENOSPC: (path) => `the disk is full (writing ${path}); free some space or choose another folder with --out`,
  EDQUOT: (path) => `your disk quota is used up (writing ${path}); free some space or choose another folder with --out`,
  EROFS: (path) => `${path} is on a read-only disk; choose another folder with --out`,
  EACCES: (path) => `no permission for ${path}; change its permissions or choose another path`,
  ENOENT: (path) => `${path} does not exist`,
  ENOTDIR: (path) => `a part of the path ${path} is a file, not a folder; choose another path`,
  EMFILE: (path) => `too many open files (opening ${path}); raise the limit with "ulimit -n 4096"`,
}

function withCauses(error: Error): string {
  const stack = error.stack ?? error.message
  return error.cause instanceof Error ? `${stack}\ncaused by: ${withCauses(error.cause)}` : stack
}
