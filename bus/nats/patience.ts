/** Outlasting a server that restarts or a disk that is full: repeated attempts, then one clear error. */
import { JetStreamApiCodes, JetStreamApiError, JetStreamError } from '@nats-io/jetstream'
import { errors, type PermissionViolationError } from '@nats-io/nats-core'
import { setTimeout as sleep } from 'node:timers/promises'
import { BusClosedError } from '../errors.ts'
import type { Lifetime } from '../lifetime.ts'
import { LinkLostError } from './link.ts'
import type { Shared } from './shared.ts'

/** The server did not take or give something for longer than the patience of this process. */
export class UnavailableError extends Error {
  override name = 'UnavailableError'
}

/** The credentials of this process do not permit what it tried. */
export class NotPermittedError extends Error {
  override name = 'NotPermittedError'
}

function violationIn(error: unknown): PermissionViolationError | null {
  if (error instanceof errors.PermissionViolationError) return error
  return error instanceof Error && error.cause !== undefined ? violationIn(error.cause) : null
}

/** Codes of the server's `ApiError.err_code`. */
const INSUFFICIENT_RESOURCES = 10023
const STORAGE_EXCEEDED = 10047
const STORE_FAILED = 10077
const JETSTREAM_DOWN = 10008

/** The system's own words for a full disk: the server passes them on, under whatever code the failed write had. */
const DISK_FULL = /no space left on device|not enough space on the disk|disk quota exceeded/i

const outOfRoom = (error: unknown): boolean =>
  error instanceof JetStreamApiError &&
  ([INSUFFICIENT_RESOURCES, STORAGE_EXCEEDED, STORE_FAILED].includes(error.code) || DISK_FULL.test(error.message))

/** The stream has a message of this subject: each names one thing, so this one is the same again. */
export const isRepeat = (error: unknown): boolean =>
  error instanceof JetStreamApiError &&
  (error.code === JetStreamApiCodes.StreamWrongLastSequence ||
    (error.code === STORE_FAILED && error.message.includes('per subject')))

/** Failures that a later attempt may not meet. */
function passes(error: unknown): boolean {
  if (outOfRoom(error)) return true
  if (error instanceof JetStreamApiError) return error.code === JETSTREAM_DOWN || error.status === 503
  return (
    error instanceof LinkLostError ||
    error instanceof errors.TimeoutError ||
    error instanceof errors.NoRespondersError ||
    error instanceof errors.RequestError ||
    error instanceof errors.ConnectionError ||
    error instanceof JetStreamError ||
    (error instanceof Error && error.name === 'JetStreamNotEnabled')
  )
}

/**
 * Repeats `attempt`, which must be safe to repeat, with growing pauses up to 2 s until it succeeds, fails for good, the
 * bus closes (BusClosedError) or `patienceMs` are over (UnavailableError). `discard` closes what an attempt opens after
 * it was given up.
 */
export async function patiently<T>(
  { patienceMs, turns, link }: Pick<Shared, 'patienceMs' | 'turns' | 'link'>,
  life: Lifetime,
  what: string,
  attempt: () => Promise<T>,
  discard?: (late: T) => void,
): Promise<T> {
  const deadline = Date.now() + patienceMs
  for (let pause = 25; ; pause = Math.min(2 * pause, 2000)) {
    life.assertOpen()
    await turns.next()
    try {
      return await link.during(attempt, discard)
    } catch (error) {
      if (error instanceof errors.ClosedConnectionError || error instanceof errors.DrainingConnectionError) {
        throw new BusClosedError(what)
      }
      const denied = violationIn(error)
      if (denied) {
        const { operation, subject } = denied
        throw new NotPermittedError(
          `${what}: the credentials of this process do not permit to ${operation} ${subject}`,
          {
            cause: error,
          },
        )
      }
      if (!passes(error)) throw error
      if (Date.now() + pause > deadline) throw unavailable(what, patienceMs, error)
    }
    await sleep(pause)
  }
}

function unavailable(what: string, patienceMs: number, cause: unknown): UnavailableError {
  const remedy = outOfRoom(cause)
    ? 'its storage is full: free space on its disk or raise its limits, then resume the run'
    : 'check that it runs and can be reached, then resume the run'
  return new UnavailableError(
    `${what} failed for ${patienceMs / 1000} s: the NATS server says "${(cause as Error).message}"; ${remedy}`,
    { cause },
  )
}
