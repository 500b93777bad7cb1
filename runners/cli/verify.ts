/** `visplay verify`: recomputes reference outputs and compares. */
import { type Command, Option } from 'commander'
import { resolve } from 'node:path'
import { COMPUTING } from '../../configs/devices.ts'
import type { Verified } from '../../models/losses/verify-grpo.ts'
import { integer, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput, type Output } from './output.ts'

interface Options extends CommonOptions {
  readonly threads: number
  readonly digests: boolean
  readonly device: (typeof COMPUTING)[number]
}

export function command(): Command {
  const about =
    'Recomputes reference outputs (goldens) of vision-language models and of GRPO losses, and compares every value.'
  return newCommand('verify', about, [
    ['test/goldens', 'everything: one line per case'],
    ['test/goldens/smolvlm/tiny64', 'one variant'],
    ['test/goldens/grpo --json', '{"case","quantity","maxError","tolerance","pass"} per quantity'],
  ])
    .argument('<dir>', 'a goldens folder, or a family or variant in it; images/ is found upwards')
    .option('--threads <n>', 'CPU threads; 0 = the cores of the machine', integer(0), 0)
    .addOption(new Option('--device <name>', 'where to compute').choices(COMPUTING).default('cpu'))
    .option('--no-digests', 'do not compare files with the published set (same seed, generated on another machine)')
    .action(run)
}

async function run(dir: string, options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const { verifyGoldens } = await import('../verify.ts')
  const summary = new Summary(output)
  const { threads, digests, device } = options
  for await (const line of verifyGoldens(resolve(dir), { threads, digests, device })) {
    output.data(line)
    if ('event' in line) summary.skip(line.case, line.reason)
    else summary.add(line)
  }
  summary.end()
}

/** Text for people: one line per case, and every failure. */
class Summary {
  #counts = { passed: 0, failed: 0, skipped: 0, digests: 0 }
  #current: { name: string; passed: number; failed: number } | null = null

  constructor(private readonly output: Output) {}

  add(line: Verified): void {
    const isFile = line.quantity === 'file'
    const name = isFile ? 'digests of files' : line.case
    if (this.#current?.name !== name) this.#flush()
    this.#current ??= { name, passed: 0, failed: 0 }
    const result = line.pass ? 'passed' : 'failed'
    this.#current[result]++
    this.#counts[result]++
    if (isFile) this.#counts.digests++
    if (!line.pass) this.output.text(`✗ ${line.case}: ${explain(line)}`)
  }

  skip(name: string, reason: string): void {
    this.#flush()
    this.#counts.skipped++
    this.output.text(`- ${name}: skipped, ${reason}`)
  }

  /** The last line; a failure, or nothing verified at all, sets the exit code. */
  end(): void {
    this.#flush()
    const { passed, failed, skipped, digests } = this.#counts
    this.output.data({ event: 'done', ...this.#counts })
    this.output.text(`${passed} passed, ${failed} failed, ${skipped} folders skipped, ${digests} digests compared`)
    if (failed > 0 || passed === 0) process.exitCode = 1
  }

  #flush(): void {
    const { name, passed, failed } = this.#current ?? {}
    if (name !== undefined)
      this.output.text(`${failed ? '✗' : '✓'} ${name}: ${passed} of ${passed! + failed!} quantities`)
    this.#current = null
  }
}

function explain({ quantity, maxError, tolerance, message }: Verified): string {
  if (message !== undefined) return message
  if (quantity === 'file')
    return 'is not the published file (SHA-256): altered, or generated on another machine (--no-digests)'
  return `${quantity} is off by ${maxError.toPrecision(3)}, allowed ${tolerance.toPrecision(3)}`
}
