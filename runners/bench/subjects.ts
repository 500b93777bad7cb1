/** Which models and workloads are measured. */
import { basename } from 'node:path'
import { loadSmolVlmConfig } from '../../models/vlm/smolvlm/config.ts'
import { loadSmolVlmProcessor } from '../../models/vlm/smolvlm/processor.ts'
import { ARCHITECTURES, type Architecture } from './architectures.ts'
import type { Subject } from './bench.ts'
import { benchCheckpoint } from './checkpoint.ts'
import type { Workload } from './workload.ts'

export interface Choice {
  readonly architecture?: Architecture
  /** A checkpoint of the user's instead. */
  readonly dir?: string
  readonly quick: boolean
}

/** Without a choice: the tiny model and SmolVLM-256M. */
export async function* subjects(choice: Choice, onNote: (line: string) => void): AsyncGenerator<Subject> {
  if (choice.dir !== undefined) {
    yield { name: basename(choice.dir), dir: choice.dir, ...lora(await onePrompt(choice.dir, 128, 64)) }
    return
  }
  const chosen = choice.architecture ? [choice.architecture] : ARCHITECTURES.filter((a) => a !== 'smolvlm-500m')
  for (const architecture of chosen) {
    const sizes = architecture === 'tiny' ? [64] : choice.quick ? [256] : [256, 512]
    for (const pixels of sizes) {
      onNote(`${architecture}: checkpoint with random weights`)
      const dir = await benchCheckpoint(architecture, pixels)
      const base = { name: architecture, dir }
      if (architecture === 'tiny') yield { ...base, train: 'full', workloadName: '64x2x8', workload: BOTH_ROLES }
      yield { ...base, ...lora(await (architecture === 'tiny' ? onePrompt(dir, 85, 32) : onePrompt(dir, 128, 64))) }
    }
  }
}

/**
 * 64 pictures, two questions of 11 tokens each, eight answers of two tokens each. The temperature makes about three of
 * eight answers distinct, as a trained model does.
 */
const BOTH_ROLES: Workload = {
  images: 64,
  prompt: 'ask',
  questions: { samples: 2, tokens: 11, temperature: 1 },
  answers: { samples: 8, tokens: 2, temperature: 0.035 },
}

const TEXT = 'what color is the '

/** Four pictures, eight completions of `tokens` each, of a prompt of `promptTokens`, image included. */
async function onePrompt(
  dir: string,
  promptTokens: number,
  tokens: number,
): Promise<{ name: string; workload: Workload }> {
  const processor = await loadSmolVlmProcessor(dir, await loadSmolVlmConfig(dir))
  const length = (prompt: string) => {
    const { prefix, suffix } = processor.prompts.splitPrompt(prompt, {
      rows: 0,
      cols: 0,
      features: processor.imageSeqLen,
    })
    return prefix.length + suffix.length
  }
  let prompt = ''
  for (let i = 0; length(prompt + TEXT[i % TEXT.length]!) <= promptTokens; i++) prompt += TEXT[i % TEXT.length]!
  const workload = { images: 4, questions: null, answers: { samples: 8, tokens, temperature: 1 }, prompt }
  return { name: `4x8x${tokens}`, workload }
}

const lora = ({ name, workload }: { name: string; workload: Workload }) =>
  ({ train: 'lora', workloadName: name, workload }) as const
