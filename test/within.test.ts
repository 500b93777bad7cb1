/** Time limits fire, whatever the garbage collector does meanwhile. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { within } from '../bus/within.ts'

/** As `fetch` and the bus do: waits for nothing but the signal. */
const forEver = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => {
    const end = () => reject(signal.reason as Error)
    if (signal.aborted) end()
    signal.addEventListener('abort', end, { once: true })
  })

test('a limit ends the work although everything that can be collected is', async () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const collecting = setInterval(collect, 10)
  try {
    await expect(within(300, forEver, { signal: new AbortController().signal })).rejects.toThrow('longer than 0.3 s')
  } finally {
    clearInterval(collecting)
  }
})

test('the signal ends it with its own reason, before or meanwhile, and work that ends in time is left alone', async () => {
  const stop = new AbortController()
  const working = within(60_000, forEver, { signal: stop.signal })
  stop.abort(new Error('enough'))
  await expect(working).rejects.toThrow('enough')
  await expect(within(60_000, forEver, { signal: stop.signal })).rejects.toThrow('enough')
  expect(await within(60_000, () => Promise.resolve(1))).toBe(1)
})
