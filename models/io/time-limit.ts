/** Bounds the time of synchronous work on what a checkpoint brings: templates and regular expressions are programs. */
import { createContext, Script } from 'node:vm'

/** The work did not end; the message says after how long. */
export class TimeLimitError extends Error {
  override name = 'TimeLimitError'
}

const box = createContext({ work: null as (() => unknown) | null })
const script = new Script('work()')

/**
 * The result of `work`, which must be synchronous and may be stopped anywhere, in the middle of a regular expression
 * too. A machine that slept meanwhile is given a second chance. Costs some 50 µs.
 *
 * @throws TimeLimitError after twice `ms` milliseconds; whatever `work` throws.
 */
export function withinTime<T>(ms: number, work: () => T): T {
  try {
    return runOnce(ms, work)
  } catch (error) {
    if (!isTimeout(error)) throw error
  }
  try {
    return runOnce(ms, work)
  } catch (error) {
    if (!isTimeout(error)) throw error
    throw new TimeLimitError(`it does not end within ${ms / 1000} seconds`, { cause: error })
  }
}

function runOnce<T>(ms: number, work: () => T): T {
  const outer = box['work'] as unknown
  box['work'] = work
  try {
    return script.runInContext(box, { timeout: ms }) as T
  } finally {
    box['work'] = outer
  }
}

/** The error is made in the other context, where `Error` is another one. */
const isTimeout = (error: unknown): boolean =>
  typeof error === 'object' && error !== null && 'code' in error && error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT'
