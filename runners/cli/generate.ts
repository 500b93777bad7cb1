/** `visplay generate`: one completion of one prompt about an image. */
import type { Command } from 'commander'
import { resolve } from 'node:path'
import { UsageError } from './fail.ts'
import { modelOptions, openModel } from './model-options.ts'
import type { ModelOptions } from './model-options.ts'
import { atLeast, integer, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'

interface Options extends CommonOptions, ModelOptions {
  readonly image?: string[]
  readonly prompt: string
  readonly maxNewTokens: number
  readonly temperature: number
  readonly seed: number
}

export function command(): Command {
  const about = 'Answers one prompt about an image. Greedy by default: the same call gives the same text.'
  return modelOptions(
    newCommand('generate', about, [
      ['--model models/tiny --image cat.png --prompt "What colour is the cat?"', 'text'],
      ['--model models/tiny --image cat.png --prompt "…" --json', '{"text","tokens","logprobs","promptTokens"}'],
      ['--model ./SmolVLM-256M-Instruct --adapter runs/a/checkpoints/final --image …', 'with an adapter'],
    ]),
  )
    .option('--image <file...>', 'the image')
    .requiredOption('--prompt <text>', 'what to ask')
    .option('--max-new-tokens <n>', 'longest completion', integer(1), 64)
    .option('--temperature <t>', '0 = greedy', atLeast(0), 0)
    .option('--seed <n>', 'seed of the sampling', integer(0), 0)
    .action(run)
}

async function run(options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const files = options.image ?? []
  if (files.length > 1) throw new UsageError('generate takes one --image; call it once for each image')
  const { imageFromFile } = await import('../eval/image-source.ts')
  const image = files[0] === undefined ? null : await imageFromFile(resolve(files[0]))
  const { prompt, maxNewTokens, temperature, seed } = options
  const model = await openModel(options)
  try {
    const request = { key: 'generate', image, prompt, samples: 1, maxNewTokens, temperature, seed }
    const { samples, promptTokens } = (await model.generate([request]))[0]!
    const { text, tokens, logprobs } = samples[0]!
    output.data({ text, tokens, logprobs, promptTokens })
    output.text(text)
  } finally {
    await model.dispose()
  }
}
