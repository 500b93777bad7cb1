/** `visplay eval`: accuracy of a model on held-out questions. */
import type { Command } from 'commander'
import { resolve } from 'node:path'
import type { EvalScore } from '../../actors/scoring.ts'
import { interruptible } from './interrupt.ts'
import { modelDir } from './model-dir.ts'
import { modelOptions, openModel } from './model-options.ts'
import type { ModelOptions } from './model-options.ts'
import { integer, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import type { Output } from './output.ts'

interface Options extends CommonOptions, ModelOptions {
  readonly data: string
  readonly samples: number
  readonly limit?: number
  readonly seed: number
}

export function command(): Command {
  const about = [
    'Measures a model on questions with known answers. mean1: a sample at temperature 1 is right;',
    'greedy: the greedy answer is right; maj: the most frequent of the samples is right.',
  ].join('\n')
  return modelOptions(
    newCommand('eval', about, [
      ['--model models/tiny --data held-out.jsonl', 'a table'],
      ['--model models/tiny --data held-out.jsonl --json', '{"n","mean1","greedy","maj","byType"}'],
    ]),
  )
    .requiredOption('--data <file>', 'JSONL: {"image", "question", "answer" | "answers", "type"?}')
    .option('--samples <n>', 'samples per question', integer(1), 8)
    .option('--limit <n>', 'use only the first questions', integer(1))
    .option('--seed <n>', 'seed of the sampling', integer(0), 0)
    .action(run)
}

async function run(options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const [{ readEvalSet }, { loadConfig }, { evaluateModel }] = await Promise.all([
    import('../../actors/eval-set.ts'),
    import('../../configs/load.ts'),
    import('../eval/evaluate-model.ts'),
  ])
  const questions = (await readEvalSet(resolve(options.data))).slice(0, options.limit)
  const { dir } = await modelDir(options.model)
  const { prompts, generation } = loadConfig({ flags: [{ key: 'model.dir', value: dir, flag: '--model' }] })
  const model = await openModel({ ...options, model: dir })
  try {
    const score = await interruptible((signal) =>
      evaluateModel(model, questions, {
        prompt: prompts.reasoner,
        maxNewTokens: generation.maxAnswerTokens,
        samples: options.samples,
        seed: options.seed,
        signal,
      }),
    )
    output.data(score)
    printTable(output, score)
  } finally {
    await model.dispose()
  }
}

function printTable(output: Output, score: EvalScore): void {
  const percent = (x: number) => `${(100 * x).toFixed(1)} %`.padStart(8)
  output.text(`${'type'.padEnd(16)} ${'n'.padStart(6)}    mean1   greedy      maj`)
  for (const [type, s] of [...Object.entries(score.byType), ['all', score] as const]) {
    const n = String(s.n).padStart(6)
    output.text(`${type.padEnd(16)} ${n} ${percent(s.mean1)} ${percent(s.greedy)} ${percent(s.maj)}`)
  }
}
