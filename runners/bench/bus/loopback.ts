/** How fast this machine moves bytes to other processes through plain sockets: the bound of every transfer here. */
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { randomBytes } from 'node:crypto'
import type { Fleet } from './fleet.ts'
import { machineClock } from './protocol.ts'

const CHUNK_BYTES = 512 * 1024

/** Milliseconds until all processes of the fleet have read their share of `bytes` from a socket of this process. */
export async function plainTransferMs(fleet: Fleet, bytes: number): Promise<number> {
  const chunk = randomBytes(CHUNK_BYTES)
  const server = createServer((socket) => pour(socket, chunk))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const start = machineClock()
    await fleet.read((server.address() as AddressInfo).port, bytes)
    return machineClock() - start
  } finally {
    server.close()
  }
}

/** Until the reader has enough and closes. */
function pour(socket: Socket, chunk: Uint8Array): void {
  socket.on('error', () => socket.destroy())
  const fill = () => {
    while (socket.writable && socket.write(chunk));
  }
  socket.on('drain', fill)
  fill()
}
