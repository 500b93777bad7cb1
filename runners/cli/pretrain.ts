/** `visplay pretrain`: the tiny model from nothing. */
import type { Command } from 'commander'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { interruptible } from './interrupt.ts'
import { integer, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'

interface Options extends CommonOptions {
  readonly out: string
  readonly config: string
  readonly from?: string
  readonly seed?: number
  readonly threads: number
  readonly reportEvery: number
}

const RECIPE = fileURLToPath(new URL('../../configs/pretrain/tiny.yaml', import.meta.url))

export function command(): Command {
  const about = 'Trains the tiny model on rendered, labelled scenes: vision, captions, then questions in both roles.'
  return newCommand('pretrain', about, [
    ['--out my-tiny', 'the recipe of the shipped model (about a quarter of an hour on two idle cores)'],
    ['--out softer --from models/tiny --config more.yaml', 'go on from a checkpoint with other phases'],
  ])
    .requiredOption('--out <dir>', 'folder of the checkpoint; written after every phase')
    .option('--config <file>', 'phases as YAML', RECIPE)
    .option('--from <dir>', 'checkpoint to start from instead of random weights')
    .option('--seed <n>', 'seed of weights, scenes and batches', integer(0))
    .option('--threads <n>', 'CPU threads; 0 = the cores of the machine', integer(0), 0)
    .option('--report-every <n>', 'steps between reports', integer(1), 100)
    .action(run)
}

async function run(options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const [{ readPretrainConfig }, { pretrain }] = await Promise.all([
    import('../../configs/pretrain-schema.ts'),
    import('../pretrain/pretrain.ts'),
  ])
  const config = readPretrainConfig(resolve(options.config))
  const { out, from, threads, reportEvery } = options
  await interruptible(async (signal) => {
    const reports = pretrain({
      ...config,
      seed: options.seed ?? config.seed,
      out: resolve(out),
      from: from === undefined ? null : resolve(from),
      threads,
      reportEvery,
      signal,
    })
    for await (const report of reports) {
      output.data(report)
      const { event, phase, step, of, loss, seconds, clean, shifted } = report
      const percent = (x: number) => `${(100 * x).toFixed(1)} %`
      const probes =
        clean && shifted ? `  greedy: clean ${percent(clean.greedy)}, shifted ${percent(shifted.greedy)}` : ''
      if (event === 'done') output.text(`done in ${seconds.toFixed(0)} s: ${resolve(out)}${probes}`)
      else output.note(`${phase} ${step}/${of}  loss ${loss.toFixed(3)}  ${seconds.toFixed(0)} s${probes}`)
    }
  })
}
