/** `visplay doctor`: what this machine has. */
import type { Command } from 'commander'
import { newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'

export function command(): Command {
  return newCommand('doctor', 'Checks what a run needs: runtime, image formats, NATS server, models, cores, disk.', [
    ['', 'one line per check'],
    ['--json', '{"check","status","detail"} per line, then {"event":"done","passed","failed"}'],
  ]).action(run)
}

const MARKS = { ok: '✓', warn: '!', fail: '✗' } as const

async function run(options: CommonOptions): Promise<void> {
  const output = createOutput(options.json === true)
  const { diagnose } = await import('../doctor.ts')
  let [passed, failed] = [0, 0]
  for await (const result of diagnose()) {
    if (result.status === 'fail') failed++
    else passed++
    output.data(result)
    output.text(`${MARKS[result.status]} ${result.check.padEnd(12)} ${result.detail}`)
  }
  output.data({ event: 'done', passed, failed })
  if (failed > 0) process.exitCode = 1
}
