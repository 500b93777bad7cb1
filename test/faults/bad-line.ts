/**
 * A line to a server that can be bad, as a proxy of TCP connections: for machines whose kernel has no `tc netem`. Delay
 * is that of each direction. A lost segment shows in TCP as a pause until it is sent again, for all that comes after it; so it does here.
 */
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { rng } from '../support/rng.ts'

export interface Quality {
  /** Milliseconds in each direction. */
  readonly delay: number
  /** Share of the segments that are lost. */
  readonly loss: number
  /** Connections break, and new ones are refused. */
  readonly cut: boolean
}

/** The least time until TCP sends again (RFC 6298 says 1 s, Linux 200 ms). */
const RESEND_MS = 200
const SEGMENT_BYTES = 1460
/** Acknowledgements of later segments that it takes to see a loss (RFC 5681). */
const TAIL = 3
const ROUND_TRIP_MS = 5

export const GOOD: Quality = { delay: 0, loss: 0, cut: false }

interface Connection {
  readonly client: Socket
  readonly server: Socket
  /** What is sent vanishes, and nobody is told. */
  deaf: boolean
}

export class BadLine {
  #quality = GOOD
  readonly #server: Server
  readonly #connections = new Set<Connection>()
  readonly #random = rng(1)
  /** Segments that were lost. */
  lost = 0

  private constructor(to: { readonly host: string; readonly port: number }) {
    this.#server = createServer((client) => {
      if (this.#quality.cut) return void client.destroy()
      const connection = { client, server: connect(to.port, to.host), deaf: false }
      const { server } = connection
      this.#connections.add(connection)
      this.#carry(client, server, connection)
      this.#carry(server, client, connection)
      const end = (): void => {
        this.#connections.delete(connection)
        // Over a deaf line not even the end of a connection is heard.
        if (!connection.deaf) for (const socket of [client, server]) socket.destroy()
      }
      for (const socket of [client, server]) socket.on('error', () => {}).on('close', end)
    })
  }

  static async to(port: number, host = '127.0.0.1'): Promise<BadLine> {
    const line = new BadLine({ host, port })
    await new Promise<void>((resolve) => line.#server.listen(0, '127.0.0.1', resolve))
    return line
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  become(quality: Quality): void {
    this.#quality = quality
    if (quality.cut) this.#breakAll()
  }

  /** The connections that there are become half-open: each side believes in the other, and hears nothing more. */
  deafen(): void {
    for (const connection of this.#connections) connection.deaf = true
  }

  close(): Promise<void> {
    this.#breakAll()
    return new Promise((resolve) => this.#server.close(() => resolve()))
  }

  #breakAll(): void {
    for (const { client, server } of [...this.#connections]) {
      client.destroy()
      server.destroy()
    }
  }

  /** In order: what was lost holds up what comes after it. */
  #carry(from: Socket, to: Socket, connection: Connection): void {
    let arrives = 0
    let before = Promise.resolve()
    from.on('data', (bytes: Buffer) => {
      if (connection.deaf) return
      const { delay, loss } = this.#quality
      const segments = Math.ceil(bytes.length / SEGMENT_BYTES)
      const lost = Array.from({ length: segments }, () => this.#random() < loss)
      this.lost += lost.filter(Boolean).length
      // Segments behind it tell of a loss within a round trip; of the last ones nothing tells but the clock.
      const silent = lost.slice(-TAIL).some(Boolean)
      const pause = silent ? RESEND_MS : lost.some(Boolean) ? 2 * delay + ROUND_TRIP_MS : 0
      arrives = Math.max(performance.now() + delay, arrives) + pause
      const at = arrives
      before = before.then(async () => {
        const wait = at - performance.now()
        if (wait > 0) await sleep(wait)
        if (to.writable && !connection.deaf) to.write(bytes)
      })
    })
  }
}
