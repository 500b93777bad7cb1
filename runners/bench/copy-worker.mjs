/** Copies a buffer that no cache holds; answers every message with the seconds of one copy. */
import { parentPort, workerData } from 'node:worker_threads'

const from = new Float64Array(workerData.bytes / 8).fill(1)
const to = new Float64Array(from.length).fill(0)
parentPort.on('message', () => {
  to.set(from)
  parentPort.postMessage('copied')
})
parentPort.postMessage('ready')
