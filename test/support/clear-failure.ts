/** What the product promises of files that it cannot trust: it reads them, or says in one line which and what to do. */
import { expect } from 'vitest'
import { CheckpointError } from '../../models/io/checkpoint-error.ts'
import { ImageError } from '../../models/io/image.ts'

/** A detector of hangs, not a measure of speed. */
const HANG_MS = 20_000

export type Outcome = 'read' | 'refused'

/** Runs a loader; fails unless it ends, well or with an error that names `name` and a remedy on one line. */
export async function readOrRefuse(name: string, load: () => unknown): Promise<Outcome> {
  let timer: NodeJS.Timeout | undefined
  const hang = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name}: no end within ${HANG_MS} ms`)), HANG_MS)
  })
  const start = performance.now()
  try {
    await Promise.race([Promise.resolve().then(load), hang])
    return 'read'
  } catch (error) {
    if (!(error instanceof CheckpointError || error instanceof ImageError)) throw error
    const { message } = error
    expect(message).toContain(name)
    expect(message, 'one line').not.toMatch(/\p{Cc}/u)
    expect(message.length).toBeLessThan(4000)
    expect(message, 'says what to do').toMatch(/\b(download|use|give|correct|convert|shrink|replaced|lower|unpack)/)
    return 'refused'
  } finally {
    clearTimeout(timer)
    // Synchronous work holds up the timer above.
    expect(performance.now() - start).toBeLessThan(HANG_MS)
  }
}
