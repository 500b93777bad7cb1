/** Ctrl-C: the first asks for an orderly stop, a second one quits at once. */

/** The reason of the abort signal after Ctrl-C, SIGTERM or SIGHUP. */
export class Interrupted extends Error {
  override name = 'Interrupted'
  readonly exitCode: number
  constructor(signal: Stopping) {
    super(`stopped by ${signal}`)
    this.exitCode = 128 + { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 }[signal]
  }
}

const STOPPING = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
type Stopping = (typeof STOPPING)[number]

/** `npm start` forwards the Ctrl-C that the terminal already gave us: signals this close together are one. */
const SAME_PRESS_MS = 300

/**
 * Runs `job` with a signal that aborts on Ctrl-C, with an Interrupted as its reason. A job that ends although it was
 * interrupted (with or without an error) sets the exit code 130 (143 for SIGTERM).
 */
export async function interruptible<T>(job: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  let pressed = 0
  const onSignal = (name: Stopping): void => {
    if (pressed === 0) {
      pressed = Date.now()
      const interrupted = new Interrupted(name)
      process.exitCode = interrupted.exitCode
      process.stderr.write('\nstopping in order; press Ctrl-C again to quit at once\n')
      controller.abort(interrupted)
    } else if (Date.now() - pressed > SAME_PRESS_MS) process.exit(new Interrupted(name).exitCode)
  }
  for (const name of STOPPING) process.on(name, onSignal)
  try {
    return await job(controller.signal)
  } finally {
    for (const name of STOPPING) process.off(name, onSignal)
  }
}
