import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { PACKAGE_ROOT } from '../configs/load.ts'

const readme = readFileSync(join(PACKAGE_ROOT, 'README.md'), 'utf8')
const sections = readme.split(/^(?=##+ )/m)

describe('README', () => {
  test('paths of the repository exist', () => {
    const paths = [...readme.matchAll(/`((?:actors|bus|configs|models|runners|test)\/[\w./-]*)`/g)].map((m) => m[1]!)
    const missing = paths.filter((path) => !path.includes('my-') && !existsSync(join(PACKAGE_ROOT, path)))
    expect(paths.length).toBeGreaterThan(10)
    expect(missing).toEqual([])
  })

  test('each command of the table has its file', () => {
    const names = [...readme.matchAll(/^\| `visplay (\w+)/gm)].map((m) => m[1]!)
    expect(names.length).toBeGreaterThan(5)
    for (const name of names) expect(existsSync(join(PACKAGE_ROOT, 'runners', 'cli', `${name}.ts`)), name).toBe(true)
  })

  test.each(['reward', 'recipe', 'loss', 'model family', 'actor'])('"Add a(n) %s" takes at most 10 lines', (what) => {
    const section = sections.find((s) => new RegExp(`^### Add an? ${what}\\n`).test(s))
    expect(section?.trim().split('\n').length).toBeLessThanOrEqual(10)
  })
})
