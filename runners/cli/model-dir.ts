/** `--model` of a command: a folder, or a name on the Hugging Face hub, which is fetched with its progress on stderr. */
import type { ResolvedModel } from '../hub/resolve-model.ts'
import { interruptible } from './interrupt.ts'

/** Steps of the shown progress, as a share. */
const SHOWN = 0.1

/** The folder. Throws HubError in one line; Interrupted after Ctrl-C, with what has come kept for the next time. */
export async function modelDir(value: string): Promise<ResolvedModel> {
  const { resolveModel } = await import('../hub/resolve-model.ts')
  const note = (line: string): void => void process.stderr.write(`${line}\n`)
  let next = 0
  return interruptible((signal) =>
    resolveModel(value, {
      signal,
      onNote: note,
      onProgress: ({ name, done, total }) => {
        if (done < next * total) return
        next = Math.floor(done / total / SHOWN) * SHOWN + SHOWN
        note(`fetching ${name}: ${megabytes(done)} of ${megabytes(total)} MB`)
      },
    }),
  )
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1)
