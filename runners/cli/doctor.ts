/** `visplay doctor`: what this machine has. */
import { type Command, Option } from 'commander'
import { COMPUTING } from '../../configs/devices.ts'
import type { CheckResult } from '../doctor.ts'
import { collect, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'

export function command(): Command {
  return newCommand('doctor', 'Checks what a run needs: runtime, image formats, NATS server, models, cores, disk.', [
    ['', 'one line per check'],
    ['--model ./SmolVLM-256M-Instruct --set model.train=lora', 'also what a run of this model takes of the memory'],
    ['--device webgpu', 'also every op and the graphs of the tiny model on a device: right? on the CPU instead?'],
    ['--json', '{"check","status","detail"} per line, then {"event":"done","passed","failed"}'],
  ])
    .option('--model <dir>', 'folder of a Hugging Face checkpoint: does a run of it fit?')
    .option('--set <key=value>', 'a setting of that run, repeatable', collect)
    .addOption(
      new Option('--device <name>', 'check a device: every op, generation and training, against the CPU').choices(
        COMPUTING,
      ),
    )
    .action(run)
}

interface Options extends CommonOptions {
  readonly model?: string
  readonly set?: string[]
  readonly device?: (typeof COMPUTING)[number]
}

const MARKS = { ok: '✓', warn: '!', fail: '✗' } as const

async function run(options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const { diagnose } = await import('../doctor.ts')
  let [passed, failed] = [0, 0]
  const tell = (result: CheckResult): void => {
    if (result.status === 'fail') failed++
    else passed++
    output.data(result)
    output.text(`${MARKS[result.status]} ${result.check.padEnd(12)} ${result.detail}`)
  }
  for await (const result of diagnose()) tell(result)
  if (options.model !== undefined || options.set !== undefined) {
    const result = await memoryOf(options)
    tell(result)
    for (const line of result.table) output.text(`  ${line}`)
  }
  if (options.device !== undefined) {
    const { checkDevice } = await import('../device/check-device.ts')
    for await (const result of checkDevice(options.device)) tell(result)
  }
  output.data({ event: 'done', passed, failed })
  if (failed > 0) process.exitCode = 1
}

/** The memory of a run of a model, in one line and as a table. */
async function memoryOf({ model, set = [] }: Options): Promise<CheckResult & { readonly table: readonly string[] }> {
  const [{ loadConfig }, { OVERRULE_RUN, planRun }, { availableMemory }, { checkFits, describe, gigabytes }] =
    await Promise.all([
      import('../../configs/load.ts'),
      import('../memory/plan.ts'),
      import('../../models/memory/available.ts'),
      import('../../models/memory/refusal.ts'),
    ])
  const config = loadConfig({ sets: set, flags: [{ key: 'model.dir', value: model, flag: '--model' }] })
  const { estimate, others } = await planRun(config)
  const free = await availableMemory()
  const table = Object.entries(estimate).map(
    ([part, bytes]: [string, number]) => `${part.padEnd(12)} ${gigabytes(bytes).padStart(7)} GB`,
  )
  try {
    checkFits(config.model.dir, estimate, free, others, OVERRULE_RUN)
    const detail = `a run ${describe(estimate)}, ${gigabytes(free)} GB are free`
    return { check: 'memory', status: 'ok', detail, table }
  } catch (error) {
    return { check: 'memory', status: 'fail', detail: (error as Error).message, table }
  }
}
