/** Models of the benchmark: real dimensions, random weights (speed does not depend on their values). */
import { tinyCheckpointFiles } from '../world/tiny-checkpoint.ts'
import { llavaPlan } from './plans/llava.ts'
import { neverEnding } from './plans/plan.ts'
import { qwenPlan } from './plans/qwen.ts'
import { smolVlmPlan } from './plans/smolvlm.ts'

export const ARCHITECTURES = ['tiny', 'smolvlm-256m', 'smolvlm-500m', 'qwen2.5-vl-3b', 'llava-1.5-7b'] as const
export type Architecture = (typeof ARCHITECTURES)[number]
export const isArchitecture = (name: string): name is Architecture =>
  (ARCHITECTURES as readonly string[]).includes(name)

/** Checkpoint files but the weights, and how the weights are stored. */
export interface CheckpointPlan {
  readonly files: Readonly<Record<string, string>>
  readonly dtype: 'float32' | 'bfloat16'
}

/** The checkpoint of an architecture for pictures of `pixels` a side (only SmolVLM is made for a size). */
export function checkpointPlan(architecture: Architecture, pixels: number): CheckpointPlan {
  switch (architecture) {
    case 'tiny':
      return tinyPlan()
    case 'smolvlm-256m':
    case 'smolvlm-500m':
      return smolVlmPlan(architecture, pixels)
    case 'qwen2.5-vl-3b':
      return qwenPlan()
    case 'llava-1.5-7b':
      return llavaPlan()
  }
}

function tinyPlan(): CheckpointPlan {
  const files = tinyCheckpointFiles()
  const { image_token_id: image } = JSON.parse(files['config.json']!) as { image_token_id: number }
  return { files: { ...files, ...neverEnding(image) }, dtype: 'float32' }
}
