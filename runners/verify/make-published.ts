/**
 * Writes published.json for a complete goldens folder, and for others of the same libraries that hold further variants:
 * `npx tsx runners/verify/make-published.ts DIR [DIR…]`.
 */
import { writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { readJson } from '../../models/io/json-file.ts'
import { findGoldens, isVerifiable, POSITIONS_FILE } from './find-goldens.ts'
import { digestsOf, type Published, sha256 } from './published.ts'

const [root = '.', ...others] = process.argv.slice(2).map((dir) => resolve(dir))
const { units } = await findGoldens(root)
const further = (await Promise.all(others.map((dir) => findGoldens(dir)))).flatMap((found) => found.units)
// Of folders with one label the first given counts.
const folders = [...further, ...units].filter(isVerifiable)
const positions = units.find((u) => u.kind === 'vision-positions')
if (!positions) throw new Error(`no ${POSITIONS_FILE} under ${root}`)
const about = z.looseObject({ seed: z.int(), libraries: z.record(z.string(), z.string()) })
const { seed, libraries } = await readJson(join(root, 'deviations.json'), about)
const published: Published = {
  seed,
  libraries,
  deviations: await sha256(join(root, 'deviations.json')),
  positions: await sha256(join(positions.dir, POSITIONS_FILE)),
  units: Object.fromEntries(
    await Promise.all(folders.map(async ({ label, dir }) => [label, await digestsOf(dir)] as const)),
  ),
}
await writeFile(join(import.meta.dirname, 'published.json'), `${JSON.stringify(published, null, 2)}\n`)
