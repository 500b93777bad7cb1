/** The server on its port, from its start to its end in order. */
import type { AddressInfo } from 'node:net'
import { createServer, type Server } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { createApp, type AppOptions } from './app.ts'
import type { Backend } from './backend.ts'

export interface ServeOptions extends Omit<AppOptions, 'signal'> {
  readonly host: string
  /** 0 = a free one. */
  readonly port: number
  readonly onListening: (url: string) => void
  /** Aborts for an orderly stop. */
  readonly signal: AbortSignal
}

/** How long answers that are under way may take when the server is told to stop. */
const FINISH_MS = 10_000

/** Resolves when the signal aborts and what was under way is answered; rejects when the port cannot be had. */
export async function serve(
  backend: Backend,
  { host, port, onListening, signal, ...options }: ServeOptions,
): Promise<void> {
  const cut = new AbortController()
  const app = createApp(backend, { ...options, signal: cut.signal })
  const answer = getRequestListener(app.fetch)
  const server = createServer((request, response) => void answer(request, response))
  await listen(server, host, port)
  const { port: own } = server.address() as AddressInfo
  onListening(`http://${host.includes(':') ? `[${host}]` : host}:${own}`)
  await new Promise<void>((resolve) => {
    if (signal.aborted) return resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
  const timer = setTimeout(() => {
    cut.abort(new Error('the server stops'))
    server.closeAllConnections()
  }, FINISH_MS)
  await new Promise<void>((resolve) => server.close(() => resolve()))
  clearTimeout(timer)
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'EADDRINUSE' ? 'is taken; choose another --port' : `cannot be had (${cause.message})`
      reject(new Error(`the port ${port} of ${host} ${why}`, { cause }))
    })
    server.listen(port, host, resolve)
  })
}
