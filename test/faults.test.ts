/** The suite of faults is tested as well: a row holds, and it does not hold for a program that lacks a guard. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { PACKAGE_ROOT } from '../configs/load.ts'
import { MUTATIONS } from './faults/mutations.ts'

interface Line {
  readonly event: 'row' | 'done'
  readonly passed?: boolean | number
  readonly failures?: readonly { readonly invariant: string; readonly message: string }[]
  readonly noticed?: boolean
  readonly broken?: readonly string[]
}

function faults(...args: string[]): Promise<{ code: number; lines: Line[] }> {
  const main = join(PACKAGE_ROOT, 'test', 'faults', 'main.ts')
  return new Promise((resolve) => {
    execFile(process.execPath, ['--import', 'tsx', main, '--json', ...args], (error, stdout) => {
      const lines = stdout.split('\n').slice(0, -1)
      resolve({ code: Number(error?.code ?? 0), lines: lines.map((line) => JSON.parse(line) as Line) })
    })
  })
}

test('duplicates beyond the dedupe window change nothing', async () => {
  const { code, lines } = await faults('--only', '13')
  expect([code, lines[0]]).toMatchObject([0, { event: 'row', passed: true, failures: [] }])
  expect(lines.at(-1)).toMatchObject({ event: 'done', passed: 1, failed: 0 })
})

test('without deduplication they do, and the suite names what broke', async () => {
  const { code, lines } = await faults('--mutate', 'dedupe')
  expect([code, lines.at(-1)]).toMatchObject([1, { event: 'done', mutation: 'dedupe', noticed: true }])
  expect(lines.at(-1)?.broken).toContain('one-record')
})

test.each(MUTATIONS.flatMap(({ name, edits }) => edits.map((edit) => ({ name, ...edit }))))(
  '$name finds its place in $file',
  async ({ file, old }) => {
    expect((await readFile(join(PACKAGE_ROOT, file), 'utf8')).split(old)).toHaveLength(2)
  },
)
