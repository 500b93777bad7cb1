/** Which models and workloads are measured. */
import { basename } from 'node:path'
import { familyOf } from '../../models/vlm/registry.ts'
import type { Architecture } from './architectures.ts'
import type { Subject } from './bench.ts'
import { benchCheckpoint } from './checkpoint.ts'
import { noisePicture, type Workload } from './workload.ts'

/** What is asked for instead of the usual. */
export interface Sizes {
  readonly pixels?: number
  readonly images?: number
  readonly samples?: number
  /** New tokens of a sample. */
  readonly tokens?: number
}

export interface Choice extends Sizes {
  readonly architecture?: Architecture
  /** A checkpoint of the user's instead. */
  readonly dir?: string
  readonly quick: boolean
}

/** Of pictures for a checkpoint of unknown habits. */
const USUAL_PIXELS = 512

/** Pictures that an architecture is measured with; the first one when it has to be quick. */
const PIXELS: Readonly<Record<Architecture, readonly number[]>> = {
  tiny: [64],
  'smolvlm-256m': [256, 512],
  'smolvlm-500m': [256, 512],
  'qwen2.5-vl-3b': [448],
  'llava-1.5-7b': [336],
}

/** Without a choice: the tiny model and SmolVLM-256M. */
export async function* subjects(choice: Choice, onNote: (line: string) => void): AsyncGenerator<Subject> {
  const { dir, quick, pixels: wanted } = choice
  if (dir !== undefined) {
    const pixels = wanted ?? USUAL_PIXELS
    yield { name: basename(dir), dir, pixels, ...(await lora(dir, pixels, choice, USUAL)) }
    return
  }
  const usual: readonly Architecture[] = ['tiny', 'smolvlm-256m']
  for (const architecture of choice.architecture ? [choice.architecture] : usual) {
    const sizes = PIXELS[architecture].slice(0, quick ? 1 : undefined)
    for (const pixels of wanted === undefined || architecture === 'tiny' ? sizes : [wanted]) {
      onNote(`${architecture}: checkpoint with random weights`)
      const own = await benchCheckpoint(architecture, pixels)
      const base = { name: architecture, dir: own, pixels }
      if (architecture === 'tiny') yield { ...base, train: 'full', workloadName: '64x2x8', workload: BOTH_ROLES }
      yield { ...base, ...(await lora(own, pixels, choice, architecture === 'tiny' ? TINY : USUAL)) }
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

/** Tokens of a prompt, image included, where the image leaves room; and of a completion. */
interface Lengths {
  readonly prompt: number
  readonly tokens: number
}
const TINY: Lengths = { prompt: 85, tokens: 32 }
const USUAL: Lengths = { prompt: 128, tokens: 64 }
/** Text beside a picture at least. */
const LEAST_TEXT = 32
const TEXT = 'what color is the '

/** LoRA; usually four pictures, eight completions of one prompt each. */
async function lora(dir: string, pixels: number, { images = 4, samples = 8, ...sizes }: Sizes, usual: Lengths) {
  const { processor } = await (await familyOf(dir)).open(dir)
  const { layout } = await noisePicture(processor, pixels)
  const length = (prompt: string) => {
    const { prefix, suffix } = processor.prompts.splitPrompt(prompt, layout)
    return prefix.length + suffix.length
  }
  const most = Math.max(usual.prompt, length('') + LEAST_TEXT)
  let prompt = ''
  for (let i = 0; length(prompt + TEXT[i % TEXT.length]!) <= most; i++) prompt += TEXT[i % TEXT.length]!
  const tokens = sizes.tokens ?? usual.tokens
  const workload = { images, questions: null, answers: { samples, tokens, temperature: 1 }, prompt }
  return { train: 'lora', workloadName: `${images}x${samples}x${tokens}`, workload } as const
}
