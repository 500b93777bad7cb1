/** Where runs are on the disk. */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { suggestion } from '../../configs/suggest.ts'
import { UsageError } from './fail.ts'

/** Runs without `--out` are kept here, under the current folder. */
export const RUNS = 'runs'

export const defaultRunFolder = (run: string): string => resolve(RUNS, run)

/** The folder of a run given by its folder or by its name; throws a UsageError that names near ones. */
export function findRun(nameOrFolder: string): string {
  const folders = [resolve(nameOrFolder), defaultRunFolder(nameOrFolder)]
  const found = folders.find((folder) => existsSync(join(folder, 'config.yaml')))
  if (found !== undefined) return found
  const known = existsSync(RUNS) ? readdirSync(RUNS).filter((name) => existsSync(join(RUNS, name, 'config.yaml'))) : []
  const hint = suggestion(nameOrFolder, known)
  const list = known.length === 0 ? `there are no runs in ${resolve(RUNS)}` : `runs here: ${known.slice(-5).join(', ')}`
  throw new UsageError(`there is no run "${nameOrFolder}"${hint}; ${list}`)
}

/** The folder of the named run; the one changed last in `runs/` when none is named. */
export function chosenRun(nameOrFolder: string | undefined): string {
  if (nameOrFolder !== undefined) return findRun(nameOrFolder)
  const names = existsSync(RUNS) ? readdirSync(RUNS) : []
  const byTime = names.toSorted((a, b) => statSync(join(RUNS, b)).mtimeMs - statSync(join(RUNS, a)).mtimeMs)
  return findRun(byTime[0] ?? 'newest')
}
