/** `visplay audit`: proves from its log that a run lost nothing and counted nothing twice. */
import type { Command } from 'commander'
import { join } from 'node:path'
import { interruptible } from './interrupt.ts'
import { newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import { chosenRun } from './run-folder.ts'

export function command(): Command {
  const about = [
    'Reads the log of a run, the moves of its head and its blobs, and checks what must hold of every run: each task has',
    'one end, each group is trained by one version or dropped with a reason, versions follow each other without a gap,',
    'every update follows from the verdicts in the log. Exit 1 names each invariant that does not hold.',
  ].join('\n')
  return newCommand('audit', about, [
    ['my-run', 'a run that has ended, or one under way'],
    ['my-run --json', 'a line for each violation, then the totals'],
  ])
    .argument('[run]', 'name or folder of a run; the newest in runs/ if left out')
    .action(run)
}

async function run(name: string | undefined, options: CommonOptions): Promise<void> {
  const output = createOutput(options.json === true)
  const folder = chosenRun(name)
  const [{ readConfig }, { openTap }, { auditRun }, { INVARIANTS }] = await Promise.all([
    import('../../configs/load.ts'),
    import('../tap/open.ts'),
    import('../audit/audit.ts'),
    import('../../actors/audit.ts'),
  ])
  const config = readConfig(join(folder, 'config.yaml'))
  const { tap, close } = await openTap(undefined, folder)
  try {
    const { violations, ...found } = await interruptible((signal) => auditRun(tap, config, signal))
    for (const violation of violations) output.data({ event: 'violation', ...violation })
    output.data({
      event: 'done',
      ok: violations.length === 0,
      run: config.run,
      violations: violations.length,
      ...found,
    })
    const { records, version, epoch, verdicts, dropped, dead } = found
    output.text(
      `run ${config.run}: ${records} records, version ${version ?? 'none'} in epoch ${epoch}, ${verdicts} verdicts, ` +
        `${dropped} groups dropped, ${dead} tasks given up`,
    )
    for (const [invariant, meaning] of Object.entries(INVARIANTS)) {
      const broken = violations.filter((violation) => violation.invariant === invariant)
      output.text(`${broken.length === 0 ? 'holds   ' : 'BROKEN  '}${invariant.padEnd(18)}${meaning}`)
      for (const { about, message } of broken.slice(0, 10)) output.text(`          ${about}: ${message}`)
      if (broken.length > 10) output.text(`          and ${broken.length - 10} more`)
    }
    if (violations.length > 0) process.exitCode = 1
  } finally {
    await close()
  }
}
