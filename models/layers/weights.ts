/** Names and shapes of the weights of layers that families share; linear weights are [out, in] as in PyTorch. */
import type { TextArchitecture } from './text-config.ts'

export interface ExpectedWeight {
  readonly name: string
  readonly dims: readonly number[]
}

export function weight(name: string, ...dims: number[]): ExpectedWeight {
  return { name, dims }
}

/** Weight and bias. */
export function linearWeights(name: string, out: number, into: number): ExpectedWeight[] {
  return [weight(`${name}.weight`, out, into), weight(`${name}.bias`, out)]
}

/** Weight and bias of a layer normalisation. */
export function normWeights(name: string, size: number): ExpectedWeight[] {
  return [weight(`${name}.weight`, size), weight(`${name}.bias`, size)]
}

/** What `encoderLayer` of encoder.ts takes, for each of the layers `<root>.0` … */
export function encoderWeights(root: string, layers: number, hidden: number, intermediate: number): ExpectedWeight[] {
  return Array.from({ length: layers }, (_, i) => `${root}.${i}`).flatMap((layer) => [
    ...normWeights(`${layer}.layer_norm1`, hidden),
    ...['q_proj', 'k_proj', 'v_proj', 'out_proj'].flatMap((p) =>
      linearWeights(`${layer}.self_attn.${p}`, hidden, hidden),
    ),
    ...normWeights(`${layer}.layer_norm2`, hidden),
    ...linearWeights(`${layer}.mlp.fc1`, intermediate, hidden),
    ...linearWeights(`${layer}.mlp.fc2`, hidden, intermediate),
  ])
}

/** Embedding, layers, final norm and, unless it is tied, the output projection of a text model. */
export function textWeights(text: TextArchitecture): ExpectedWeight[] {
  const { hiddenSize, layers, heads, kvHeads, headDim, intermediate, vocab, prefix, attentionBias, tied } = text
  const projection = (name: string, out: number) =>
    attentionBias ? linearWeights(name, out, hiddenSize) : [weight(`${name}.weight`, out, hiddenSize)]
  const decoder = Array.from({ length: layers }, (_, i) => `${prefix}.layers.${i}`).flatMap((layer) => [
    weight(`${layer}.input_layernorm.weight`, hiddenSize),
    ...projection(`${layer}.self_attn.q_proj`, heads * headDim),
    ...projection(`${layer}.self_attn.k_proj`, kvHeads * headDim),
    ...projection(`${layer}.self_attn.v_proj`, kvHeads * headDim),
    weight(`${layer}.self_attn.o_proj.weight`, hiddenSize, heads * headDim),
    weight(`${layer}.post_attention_layernorm.weight`, hiddenSize),
    weight(`${layer}.mlp.gate_proj.weight`, intermediate, hiddenSize),
    weight(`${layer}.mlp.up_proj.weight`, intermediate, hiddenSize),
    weight(`${layer}.mlp.down_proj.weight`, hiddenSize, intermediate),
  ])
  return [
    weight(`${prefix}.embed_tokens.weight`, vocab, hiddenSize),
    ...decoder,
    weight(`${prefix}.norm.weight`, hiddenSize),
    ...(tied ? [] : [weight('lm_head.weight', vocab, hiddenSize)]),
  ]
}
