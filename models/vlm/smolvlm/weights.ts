/** Names and shapes of the weights of a SmolVLM or Idefics3 checkpoint. */
import { CheckpointError } from '../../io/checkpoint-error.ts'
import type { Checkpoint } from '../../io/safetensors.ts'
import type { SmolVlmConfig, TextConfig, VisionConfig } from './config.ts'

export interface ExpectedWeight {
  readonly name: string
  readonly dims: readonly number[]
}

/** Every weight that a checkpoint of this config must hold; linear weights are [out, in] as in PyTorch. */
export function expectedWeights(config: SmolVlmConfig): ExpectedWeight[] {
  const { text, vision, scaleFactor } = config
  return [
    ...visionWeights(vision),
    weight('model.connector.modality_projection.proj.weight', text.hiddenSize, vision.hidden * scaleFactor ** 2),
    ...textWeights(text),
    ...(text.tied ? [] : [weight('lm_head.weight', text.vocab, text.hiddenSize)]),
  ]
}

/** Throws a `CheckpointError` that lists missing and mis-shaped tensors; further tensors are ignored. */
export function checkTensors(config: SmolVlmConfig, checkpoint: Checkpoint): void {
  const problems: string[] = []
  for (const { name, dims } of expectedWeights(config)) {
    if (!checkpoint.has(name)) problems.push(`${name} is missing`)
    else if (checkpoint.info(name).dims.join() !== dims.join()) {
      problems.push(`${name} is [${checkpoint.info(name).dims.join(', ')}], config.json asks for [${dims.join(', ')}]`)
    }
  }
  if (problems.length === 0) return
  const shown = problems.slice(0, 10).join('; ')
  const more = problems.length > 10 ? `; and ${problems.length - 10} more` : ''
  throw new CheckpointError(
    `the weights do not fit config.json, so that one of them must be replaced: ${shown}${more}`,
    { file: checkpoint.dir },
  )
}

function weight(name: string, ...dims: number[]): ExpectedWeight {
  return { name, dims }
}

function linear(name: string, out: number, into: number): ExpectedWeight[] {
  return [weight(`${name}.weight`, out, into), weight(`${name}.bias`, out)]
}

function layerNorm(name: string, size: number): ExpectedWeight[] {
  return [weight(`${name}.weight`, size), weight(`${name}.bias`, size)]
}

function visionWeights({ hidden, layers, intermediate, patch, image }: VisionConfig): ExpectedWeight[] {
  const root = 'model.vision_model'
  const encoder = Array.from({ length: layers }, (_, i) => `${root}.encoder.layers.${i}`).flatMap((layer) => [
    ...layerNorm(`${layer}.layer_norm1`, hidden),
    ...['q_proj', 'k_proj', 'v_proj', 'out_proj'].flatMap((p) => linear(`${layer}.self_attn.${p}`, hidden, hidden)),
    ...layerNorm(`${layer}.layer_norm2`, hidden),
    ...linear(`${layer}.mlp.fc1`, intermediate, hidden),
    ...linear(`${layer}.mlp.fc2`, hidden, intermediate),
  ])
  return [
    weight(`${root}.embeddings.patch_embedding.weight`, hidden, 3, patch, patch),
    weight(`${root}.embeddings.patch_embedding.bias`, hidden),
    weight(`${root}.embeddings.position_embedding.weight`, Math.floor(image / patch) ** 2, hidden),
    ...encoder,
    ...layerNorm(`${root}.post_layernorm`, hidden),
  ]
}

function textWeights(text: TextConfig): ExpectedWeight[] {
  const { hiddenSize, layers, heads, kvHeads, headDim, intermediate, vocab } = text
  const root = 'model.text_model'
  const decoder = Array.from({ length: layers }, (_, i) => `${root}.layers.${i}`).flatMap((layer) => [
    weight(`${layer}.input_layernorm.weight`, hiddenSize),
    weight(`${layer}.self_attn.q_proj.weight`, heads * headDim, hiddenSize),
    weight(`${layer}.self_attn.k_proj.weight`, kvHeads * headDim, hiddenSize),
    weight(`${layer}.self_attn.v_proj.weight`, kvHeads * headDim, hiddenSize),
    weight(`${layer}.self_attn.o_proj.weight`, hiddenSize, heads * headDim),
    weight(`${layer}.post_attention_layernorm.weight`, hiddenSize),
    weight(`${layer}.mlp.gate_proj.weight`, intermediate, hiddenSize),
    weight(`${layer}.mlp.up_proj.weight`, intermediate, hiddenSize),
    weight(`${layer}.mlp.down_proj.weight`, hiddenSize, intermediate),
  ])
  return [
    weight(`${root}.embed_tokens.weight`, vocab, hiddenSize),
    ...decoder,
    weight(`${root}.norm.weight`, hiddenSize),
  ]
}
