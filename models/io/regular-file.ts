/** Opening of files that others made: nothing but a regular file, so that no pipe or device can block or never end. */
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'

/** The path exists and is no regular file. */
export class NotAFileError extends Error {
  override name = 'NotAFileError'
}

/**
 * Opens for reading. Links are followed: the cache of the Hugging Face hub is made of them. Throws what `open` throws,
 * or a NotAFileError.
 */
export async function openRegularFile(file: string): Promise<FileHandle> {
  // Without O_NONBLOCK, opening a named pipe waits for a writer. Windows has neither.
  const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  try {
    if (!(await handle.stat()).isFile()) throw new NotAFileError('not a regular file')
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}
