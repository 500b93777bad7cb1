/** Work that may not take longer than a time. */
import { systemClock, type Clock } from './clock.ts'

export interface WithinOptions {
  /** Ends the work, too, with its own reason. */
  readonly signal?: AbortSignal | undefined
  readonly clock?: Clock
}

/**
 * Runs `work` with a signal that aborts after `ms` milliseconds with a TimeoutError. `AbortSignal.any` with an
 * `AbortSignal.timeout` is not the same: Node 20 holds the timeout so weakly that it may be collected and never fire.
 */
export async function within<T>(
  ms: number,
  work: (signal: AbortSignal) => Promise<T>,
  { signal, clock = systemClock }: WithinOptions = {},
): Promise<T> {
  const controller = new AbortController()
  const end = () => controller.abort(signal?.reason)
  if (signal?.aborted) end()
  signal?.addEventListener('abort', end, { once: true })
  const late = () => controller.abort(new DOMException(`it took longer than ${ms / 1000} s`, 'TimeoutError'))
  const timer = clock.setTimeout(late, ms)
  try {
    return await work(controller.signal)
  } finally {
    clock.clearTimeout(timer)
    signal?.removeEventListener('abort', end)
  }
}
