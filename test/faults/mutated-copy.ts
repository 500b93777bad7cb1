/** The sources of the program with some edits, in a folder of its own: what is switched off here is not a switch there. */
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PACKAGE_ROOT } from '../../configs/load.ts'

export interface Edit {
  readonly file: string
  /** Must be in the file, once. */
  readonly old: string
  readonly new: string
}

const SOURCES = ['package.json', 'tsconfig.json', 'actors', 'bus', 'configs', 'models', 'runners', 'test']

/** The folder of the copy. Throws when an edit does not find its place: the program has changed. */
export async function mutatedCopy(dir: string, edits: readonly Edit[]): Promise<string> {
  const root = join(dir, 'copy')
  await mkdir(root, { recursive: true })
  for (const name of SOURCES) await cp(join(PACKAGE_ROOT, name), join(root, name), { recursive: true })
  await symlink(join(PACKAGE_ROOT, 'node_modules'), join(root, 'node_modules'))
  for (const edit of edits) {
    const file = join(root, edit.file)
    const pieces = (await readFile(file, 'utf8')).split(edit.old)
    if (pieces.length !== 2) throw new Error(`"${edit.old}" is ${pieces.length - 1} times in ${edit.file}, not once`)
    await writeFile(file, pieces.join(edit.new))
  }
  return root
}
