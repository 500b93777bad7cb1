/** Checks what a run needs of this machine. One check = one function and its line in CHECKS. */
import { existsSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import { join } from 'node:path'
import { PACKAGE_ROOT } from '../configs/load.ts'

export interface CheckResult {
  readonly check: string
  /** `warn`: works, yet worth knowing. */
  readonly status: 'ok' | 'warn' | 'fail'
  readonly detail: string
}

type Finding = Omit<CheckResult, 'check'>
const ok = (detail: string): Finding => ({ status: 'ok', detail })
const warn = (detail: string): Finding => ({ status: 'warn', detail })
const bad = (detail: string): Finding => ({ status: 'fail', detail })

const CHECKS: Readonly<Record<string, () => Finding | Promise<Finding>>> = {
  node: nodeVersion,
  onnxruntime,
  webgpu,
  images,
  'nats-server': natsServer,
  similarity,
  'tiny model': tinyModel,
  processor,
  disk,
}

/** Every check in turn; a check that throws has failed. */
export async function* diagnose(): AsyncGenerator<CheckResult> {
  for (const [check, find] of Object.entries(CHECKS)) {
    const finding = await Promise.resolve()
      .then(find)
      .catch((error: unknown) => bad(error instanceof Error ? error.message : String(error)))
    yield { check, ...finding }
  }
}

function nodeVersion(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const fine = major > 20 || (major === 20 && minor >= 9)
  return fine ? ok(process.version) : bad(`${process.version} is too old; install Node 20.9 or newer`)
}

async function onnxruntime(): Promise<Finding> {
  const ort = await import('onnxruntime-node')
  const devices = ort.listSupportedBackends().map(({ name }) => name)
  return ok(`${ort.env.versions.node ?? 'loaded'}, can try ${devices.join(', ')}`)
}

/** In a process of its own: a driver may take it down. */
async function webgpu(): Promise<Finding> {
  const { checkDevice } = await import('./device/check-device.ts')
  for await (const { status, detail } of checkDevice('webgpu', [])) if (status !== 'ok') return ok(detail)
  return ok('computes; check it with "npx visplay doctor --device webgpu"')
}

async function images(): Promise<Finding> {
  const { default: sharp } = await import('sharp')
  const readable = Object.values(sharp.format).filter(({ input }) => input.file)
  return ok(`sharp ${sharp.versions.sharp} reads ${readable.map(({ id }) => id).join(', ')}`)
}

async function natsServer(): Promise<Finding> {
  const { findServer } = await import('../bus/nats/find-server.ts')
  const notes: string[] = []
  try {
    const { path, version, source } = await findServer({ installers: [], onNote: (note) => notes.push(note) })
    return ok(`${version} at ${path} (${source})`)
  } catch (error) {
    if (process.env['NATS_SERVER_BIN']) throw error
    const why = notes.length === 0 ? 'none found' : notes.join('; ')
    return warn(`${why}; the first run installs one into the user's cache`)
  }
}

async function similarity(): Promise<Finding> {
  const { openEmbedder } = await import('../models/similarity/embedder.ts')
  const embedder = await openEmbedder()
  const [vector] = await embedder.embed(['red'])
  return ok(`${embedder.name}, ${vector!.length} dimensions`)
}

function tinyModel(): Finding {
  const file = join(PACKAGE_ROOT, 'models', 'tiny', 'model.safetensors')
  return existsSync(file) ? ok(file) : bad(`${file} is missing; train it again with "npx visplay pretrain"`)
}

const GIB = 2 ** 30

function processor(): Finding {
  const [cores, memory] = [availableParallelism(), totalmem() / GIB]
  const detail = `${cores} cores, ${memory.toFixed(1)} GiB of memory`
  return cores < 2 || memory < 3.5 ? warn(`${detail}: a run will be slow or may not fit`) : ok(detail)
}

async function disk(): Promise<Finding> {
  const { bavail, bsize } = await statfs(process.cwd())
  const free = (bavail * bsize) / GIB
  const detail = `${free.toFixed(1)} GiB free in ${process.cwd()}`
  return free < 0.5 ? bad(`${detail}; a run needs about 0.5 GiB`) : ok(detail)
}
