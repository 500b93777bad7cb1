/** `visplay bench`: speed and memory of this machine. */
import { type Command, Option } from 'commander'
import { ARCHITECTURES, type Architecture, isArchitecture } from '../bench/architectures.ts'
import type { BenchRow } from '../bench/bench.ts'
import { type Precision, PRECISIONS } from '../../models/layers/precision.ts'
import { BUS_PARTS, type BusPart } from '../bench/bus/parts.ts'
import { interruptible } from './interrupt.ts'
import { modelDir } from './model-dir.ts'
import { MODEL } from './model-options.ts'
import { type CommonOptions, integer, newCommand } from './options.ts'
import { createOutput, type Output } from './output.ts'
import { UsageError } from './fail.ts'

interface Options extends CommonOptions {
  readonly model?: string
  readonly arch?: Architecture
  readonly quick?: true
  readonly threads: number
  readonly rollouts: Precision
  readonly pixels?: number
  readonly images?: number
  readonly samples?: number
  readonly tokens?: number
  /** True without parts: all. */
  readonly bus?: true | readonly BusPart[]
  readonly actors: number
}

export function command(): Command {
  const about = [
    'Measures rollouts, updates and whole GRPO steps, with and without the token tree, beside the rate of plain matrix',
    'products and the bandwidth of memory. Models have real dimensions and random weights; --model measures a checkpoint',
    `of yours, of any family, or one of ${ARCHITECTURES.join(', ')}.`,
    '',
    'With --bus it measures the bus, on a NATS server of its own (Linux only):',
    '  scale      completions/s, cores and bytes for ever more model actors,',
    '             each with a simulated device of 200 ms per batch',
    '  broadcast  from the commit of a 10 MB version to its swap in every actor',
    '  overhead   the same steps of the default run over NATS and in memory',
    '  tap        the same steps with and without a tap that listens',
  ].join('\n')
  return newCommand('bench', about, [
    ['', 'the tiny model and SmolVLM-256M, at 256 and 512 pixels'],
    ['--arch tiny --quick --json', 'one row per measurement'],
    ['--arch smolvlm-256m --rollouts int8', 'samples from weights of 8 bits'],
    ['--model ./SmolVLM-256M-Instruct', 'a checkpoint'],
    ['--model qwen2.5-vl-3b --images 1 --samples 4 --tokens 16', 'a large one with little work; writes 7.5 GB once'],
    ['--bus', 'the bus, all parts, about ten minutes'],
    ['--bus scale broadcast --actors 16 --json', 'some parts'],
  ])
    .option('--model <dir>', `${MODEL}; or an architecture`)
    .addOption(new Option('--arch <name>', 'only this architecture').choices(ARCHITECTURES))
    .option('--pixels <n>', 'pixels a side of the pictures', integer(16))
    .option('--images <n>', 'pictures of a step, 4 if left out', integer(1))
    .option('--samples <n>', 'completions for each picture, 8 if left out', integer(1))
    .option('--tokens <n>', 'new tokens of a completion, 64 if left out (tiny: 32)', integer(2))
    .option('--quick', 'fewer repetitions and only the small picture')
    .option('--threads <n>', 'CPU threads; 0 = the cores of the machine', integer(0), 0)
    .addOption(
      new Option('--rollouts <precision>', 'precision of the frozen weights that samples come from')
        .choices(PRECISIONS)
        .default('fp32'),
    )
    .addOption(new Option('--bus [parts...]', 'the bus instead of models: all, or some parts').choices(BUS_PARTS))
    .option('--actors <n>', 'with --bus: simulated model actors; a sweep goes on to four times as many', integer(1), 64)
    .action(run)
}

async function run({ arch, quick, threads, rollouts, json, bus, actors, ...options }: Options): Promise<void> {
  if (options.model !== undefined && arch !== undefined) throw new UsageError('give either --model or --arch, not both')
  const architecture = options.model !== undefined && isArchitecture(options.model) ? options.model : arch
  const model = architecture === undefined ? options.model : undefined
  const output = createOutput(json === true)
  if (bus !== undefined) {
    if (model !== undefined || architecture !== undefined)
      throw new UsageError('--bus measures no model: leave out --model and --arch')
    const { benchBusCommand } = await import('./bench-bus.ts')
    return benchBusCommand({ parts: bus === true ? BUS_PARTS : bus, actors, quick: quick === true }, output)
  }
  const [{ benchBandwidth, benchGemm, benchSubject }, { subjects }] = await Promise.all([
    import('../bench/bench.ts'),
    import('../bench/subjects.ts'),
  ])
  const dir = model === undefined ? undefined : (await modelDir(model)).dir
  await interruptible(async (signal) => {
    const how = { threads, rollouts, repeats: quick ? 1 : 3, signal, onNote: output.note }
    const start = performance.now()
    const gemm = await benchGemm(how)
    print(output, gemm)
    const bandwidth = await benchBandwidth(how)
    print(output, bandwidth)
    const bounds = { gflopsPerCore: Number(gemm.gflopsPerCore), gbPerSecond: Number(bandwidth.gbPerSecond) }
    let rows = 2
    const { pixels, images, samples, tokens } = options
    const chosen = {
      quick: quick === true,
      ...(architecture && { architecture }),
      ...(dir !== undefined && { dir }),
      ...Object.fromEntries(Object.entries({ pixels, images, samples, tokens }).filter(([, n]) => n !== undefined)),
    }
    for await (const subject of subjects(chosen, output.note)) {
      for await (const row of benchSubject(subject, bounds, how)) {
        print(output, row)
        rows++
      }
    }
    output.data({ event: 'done', rows, seconds: Math.round((performance.now() - start) / 1000) })
  })
}

function print(output: Output, row: BenchRow): void {
  output.data(row)
  const { row: kind, ...values } = row
  output.text(
    `${kind}: ${Object.entries(values)
      .flatMap(([name, value]) => `${name} ${value}`)
      .join(', ')}`,
  )
}
