/** Ranges of checkpoint files, or a CheckpointError that names the file. */
import type { FileHandle } from 'node:fs/promises'
import { CheckpointError } from './checkpoint-error.ts'
import { reasonOf } from './json-file.ts'

/** Largest single read: Node refuses 2 GiB and more. */
export const READ_BYTES = 2 ** 30

/** Bytes at a position, in a buffer of their own (so that any typed array may view it). */
export async function readBytesAt(
  handle: FileHandle,
  file: string,
  position: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = allocate(length, file)
  await fill(handle, file, bytes, position)
  return bytes
}

/** Fills `bytes` from a position of the file. */
export async function fill(handle: FileHandle, file: string, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const part = Math.min(bytes.length - done, READ_BYTES)
    const { bytesRead } = await readOrThrow(handle, file, bytes, done, part, position + done)
    if (bytesRead === 0) throw new CheckpointError(`truncated while it was read, at byte ${position + done}`, { file })
    done += bytesRead
  }
}

function allocate(length: number, file: string): Uint8Array {
  try {
    return new Uint8Array(length)
  } catch (cause) {
    const reason = `there is no memory for ${length} bytes of one tensor; use a smaller checkpoint`
    throw new CheckpointError(reason, { file, cause })
  }
}

async function readOrThrow(
  handle: FileHandle,
  file: string,
  into: Uint8Array,
  at: number,
  n: number,
  position: number,
) {
  try {
    return await handle.read(into, at, n, position)
  } catch (cause) {
    throw new CheckpointError(`cannot be read (${reasonOf(cause)})`, { file, cause })
  }
}
