/** The thread of a model: onnxruntime computes synchronously, and the thread of a NATS connection must never block. */
import { parentPort, workerData } from 'node:worker_threads'
import type { ImageSource, Model } from '../model.ts'
import { openModel } from './open.ts'
import type { Call, FromWorker, ImageKey, Keyed, ToWorker, WorkerStart } from './worker-messages.ts'

if (!parentPort) throw new Error('model-worker.ts is started by load.ts, as a worker thread')
const port = parentPort
const { dir, options } = workerData as WorkerStart

interface Waiting {
  resolve(bytes: Uint8Array): void
  reject(error: unknown): void
}
const pictures = new Map<string, { bytes: Promise<Uint8Array>; waiting: Waiting }>()
const send = (message: FromWorker): void => port.postMessage(message)

/** A picture whose bytes come from the other thread; asked for once while the answer is outstanding. */
function remoteImage({ key }: ImageKey): ImageSource {
  return {
    key,
    read: () => {
      const pending = pictures.get(key)
      if (pending) return pending.bytes
      let waiting!: Waiting
      const bytes = new Promise<Uint8Array>((resolve, reject) => (waiting = { resolve, reject }))
      pictures.set(key, { bytes, waiting })
      send({ kind: 'need', key })
      return bytes
    },
  }
}

const withImage = <T>(item: Keyed<T>): Omit<T, 'image'> & { image: ImageSource | null } => ({
  ...item,
  image: item.image && remoteImage(item.image),
})

async function serve(model: Model, id: number, call: Call): Promise<unknown> {
  switch (call.method) {
    case 'generate':
      return model.generate(
        call.requests.map(withImage),
        call.listen ? (token) => send({ kind: 'token', id, token }) : undefined,
      )
    case 'logprobs':
      return model.logprobs(call.groups.map(withImage))
    case 'policyGradient':
      return model.policyGradient(call.groups.map(withImage), call.loss)
    case 'load':
      return model.load(call.weights)
    case 'dispose':
      return model.dispose()
  }
}

/** Calls run one after the other: a session uses all cores, and a swap of weights must not fall into a batch. */
let tail: Promise<void> = Promise.resolve()

function receive(model: Model, message: ToWorker): void {
  if (message.kind === 'call') {
    const { id, call } = message
    tail = tail.then(async () => {
      try {
        send({ kind: 'result', id, value: await serve(model, id, call) })
      } catch (error) {
        send({ kind: 'error', id, error })
      }
    })
    return
  }
  const pending = pictures.get(message.key)
  pictures.delete(message.key)
  if (message.kind === 'image') pending?.waiting.resolve(message.bytes)
  else pending?.waiting.reject(message.error)
}

try {
  const model = await openModel(dir, options)
  port.on('message', (message: ToWorker) => receive(model, message))
  const { family, device, parameters } = model
  send({ kind: 'ready', about: { family, device, parameters }, trainable: model.trainable() })
} catch (error) {
  send({ kind: 'failed', error })
}
