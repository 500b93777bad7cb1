/** `visplay report`: makes report.html of a run again from its files. */
import type { Command } from 'commander'
import { findRun } from './run-folder.ts'
import { newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'

export function command(): Command {
  return newCommand('report', 'Makes report.html of a run from its files; also while the run goes on.', [
    ['my-run', 'runs/my-run/report.html'],
    ['/data/my-run', 'a folder works as well'],
  ])
    .argument('<run>', 'name or folder of a run')
    .action(run)
}

async function run(name: string, options: CommonOptions): Promise<void> {
  const output = createOutput(options.json === true)
  const folder = findRun(name)
  const { writeReport } = await import('../report/write.ts')
  const report = await writeReport(folder)
  output.data({ event: 'done', report })
  output.text(report)
}
