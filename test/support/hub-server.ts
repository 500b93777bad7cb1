/** A server on this machine that speaks the endpoints of the Hugging Face hub for one small model. */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

export const COMMIT = 'c0ffee'.padEnd(40, '0')
/** Larger files are kept as the hub keeps large ones: named by sha256. */
const LARGE = 1024 * 1024

export interface Asked {
  readonly method: string
  readonly path: string
  readonly range: string | null
  readonly token: string | null
}

export interface HubServer {
  readonly url: string
  readonly repo: string
  readonly asked: Asked[]
  /** Close the connection after so many bytes of this file, once. */
  breakAt: { file: string; bytes: number } | null
  /** Change a byte of this file on its way. */
  damage: string | null
  /** Files are only for this token. */
  gatedFor: string | null
  close(): Promise<void>
}

interface File {
  readonly bytes: Buffer
  readonly oid: string
  readonly sha256: string
}

/** Serves the files of a folder, and others that no model needs, as `owner/name`. */
export async function startHub(repo: string, folder: string, others: Record<string, string>): Promise<HubServer> {
  const files = new Map<string, File>()
  for (const name of await readdir(folder)) files.set(name, asFile(await readFile(join(folder, name))))
  for (const [name, text] of Object.entries(others)) files.set(name, asFile(Buffer.from(text)))
  const server = createServer((request, response) => answer(hub, files, request, response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const hub: HubServer = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    repo,
    asked: [],
    breakAt: null,
    damage: null,
    gatedFor: null,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  }
  return hub
}

const asFile = (bytes: Buffer): File => ({
  bytes,
  oid: createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex'),
  sha256: createHash('sha256').update(bytes).digest('hex'),
})

function answer(hub: HubServer, files: ReadonlyMap<string, File>, request: IncomingMessage, to: ServerResponse): void {
  const path = decodeURIComponent(new URL(request.url!, hub.url).pathname)
  const token = request.headers.authorization?.replace('Bearer ', '') ?? null
  hub.asked.push({ method: request.method!, path, range: request.headers.range ?? null, token })
  const json = (status: number, body: unknown) =>
    to.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  const api = `/api/models/${hub.repo}`
  if (path === `${api}/revision/main` || path === `${api}/revision/${COMMIT}`)
    return void json(200, { _id: '1', id: hub.repo, sha: COMMIT, private: false, gated: false, downloads: 0, likes: 0 })
  if (path === `${api}/tree/${COMMIT}`) return void json(200, [...files].map(listed))
  const prefix = `/${hub.repo}/resolve/${COMMIT}/`
  const file = path.startsWith(prefix) ? files.get(path.slice(prefix.length)) : undefined
  // Whoever is unknown is not told what there is.
  if (!file) return void json(token === null ? 401 : 404, { error: 'Repository not found' })
  if (hub.gatedFor !== null && token !== hub.gatedFor)
    return void json(403, { error: `Access to model ${hub.repo} is restricted` })
  send(hub, path.slice(prefix.length), file, request.headers.range, to)
}

function listed([path, { bytes, oid, sha256 }]: [string, File]) {
  const entry = { type: 'file', path, size: bytes.length, oid }
  return bytes.length > LARGE ? { ...entry, lfs: { oid: sha256, size: bytes.length, pointerSize: 130 } } : entry
}

function send(hub: HubServer, name: string, file: File, range: string | undefined, to: ServerResponse): void {
  const [, from = '0', last] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? []
  const end = last ? Number(last) + 1 : file.bytes.length
  const part = Buffer.from(file.bytes.subarray(Number(from), end))
  if (hub.damage === name && part.length > 1) part[0]! ^= 1
  to.writeHead(range ? 206 : 200, {
    etag: `"${file.bytes.length > LARGE ? file.sha256 : file.oid}"`,
    'content-length': part.length,
    'x-repo-commit': COMMIT,
    ...(range && { 'content-range': `bytes ${from}-${end - 1}/${file.bytes.length}` }),
  })
  const { breakAt } = hub
  if (breakAt?.file !== name || part.length <= breakAt.bytes) return void to.end(part)
  hub.breakAt = null
  to.write(part.subarray(0, breakAt.bytes), () => setTimeout(() => to.destroy(), 50))
}
