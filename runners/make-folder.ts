/** Folders that a user names. */
import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** A folder that cannot be made; the message is one line with the remedy. */
export class FolderError extends Error {
  override name = 'FolderError'
}

/**
 * Makes a folder and those above it; resolves with the outermost one that it made, null when all were there. Throws
 * FolderError. One at a time, because Node's recursive `mkdir` never ends where a file system refuses with ENOENT, as
 * /proc does.
 */
export async function makeFolder(dir: string): Promise<string | null> {
  try {
    await mkdir(dir)
    return dir
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'EEXIST' && (await stat(dir)).isDirectory()) return null
    const above = dirname(dir)
    const parentMissing = code === 'ENOENT' && above !== dir && (await stat(above).catch(() => null)) === null
    if (!parentMissing) throw new FolderError(`the folder ${dir} cannot be made: ${reasonOf(code)}`, { cause })
    const outermost = await makeFolder(above)
    await makeFolder(dir)
    return outermost
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'this file system takes no folders',
  EEXIST: 'there is a file of this name',
  ENOTDIR: 'a part of the path is a file',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the disk is read-only',
  ENOSPC: 'the disk is full',
  EDQUOT: 'your disk quota is used up',
}

const reasonOf = (code: string | undefined): string =>
  `${REASONS[code ?? ''] ?? code ?? 'unknown reason'}; choose another one with --out`
