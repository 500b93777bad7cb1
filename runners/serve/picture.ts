/** A picture of a request: a data: URL, or an address where the server was told to fetch such. */
import { createHash } from 'node:crypto'
import sharp from 'sharp'
import { within } from '../../bus/within.ts'
import { invalid } from './api-error.ts'

export interface Picture {
  /** `sha256-…` of the bytes. */
  readonly key: string
  readonly bytes: Uint8Array
}

export interface PictureLimits {
  /** Whether http(s) addresses are fetched. */
  readonly remote: boolean
  readonly maxBytes: number
}

const PARAM = 'messages'
const FETCH_MS = 20_000

/** Throws ApiError when there is no picture that can be decoded. */
export async function readPicture(url: string, limits: PictureLimits, signal: AbortSignal): Promise<Picture> {
  const bytes = url.startsWith('data:') ? fromDataUrl(url) : await fetchPicture(url, limits, signal)
  await sharp(bytes)
    .metadata()
    .catch((cause: Error) => {
      throw invalid(PARAM, `image_url: not a picture that can be decoded (${cause.message})`, 'invalid_image')
    })
  return { key: `sha256-${createHash('sha256').update(bytes).digest('hex')}`, bytes }
}

function fromDataUrl(url: string): Uint8Array {
  const [, base64] = /^data:[\w.+/-]*(?:;[\w.+=-]+)*;base64,([A-Za-z0-9+/]*={0,2})$/.exec(url) ?? []
  if (base64 === undefined || base64 === '')
    throw invalid(PARAM, 'image_url: a data: URL is written data:image/png;base64,…', 'invalid_image_url')
  return Buffer.from(base64, 'base64')
}

async function fetchPicture(url: string, { remote, maxBytes }: PictureLimits, signal: AbortSignal): Promise<Buffer> {
  if (!/^https?:\/\//.test(url)) throw invalid(PARAM, 'image_url: give a data: URL', 'invalid_image_url')
  if (!remote)
    throw invalid(
      PARAM,
      'image_url: this server fetches nothing; give a data: URL, or start it with --fetch-images',
      'invalid_image_url',
    )
  try {
    return await within(FETCH_MS, (until) => download(url, maxBytes, until), { signal })
  } catch (cause) {
    signal.throwIfAborted()
    throw invalid(PARAM, `image_url: cannot be fetched (${(cause as Error).message})`, 'invalid_image_url')
  }
}

async function download(url: string, maxBytes: number, signal: AbortSignal): Promise<Buffer> {
  const parts: Uint8Array[] = []
  let length = 0
  const response = await fetch(url, { signal })
  if (!response.ok) throw new Error(`status ${response.status}`)
  for await (const part of response.body ?? []) {
    parts.push(part as Uint8Array)
    if ((length += (part as Uint8Array).length) > maxBytes) throw new Error(`more than ${maxBytes} bytes`)
  }
  return Buffer.concat(parts)
}
