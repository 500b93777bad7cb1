/** One golden variant, opened: its checkpoint as the product loads it, and its files. */
import { join } from 'node:path'
import type { ChatMessage } from '../../io/chat-template.ts'
import { readJson } from '../../io/json-file.ts'
import type { SessionOptions } from '../../runtime/session.ts'
import type { HostTensor, Weights } from '../../tensor.ts'
import { packTrees, type TreePrompt, type TreeRoot } from '../../tree/pack.ts'
import type { Architecture, Picture, Processor } from '../family.ts'
import { type ImageInput, Network } from '../network.ts'
import { openModel } from '../open.ts'
import { type ModelInputs, processConversation } from '../pictures.ts'
import { caseSchema, type GoldenCase } from './golden-files.ts'
import type { GoldenImages } from './golden-images.ts'
import { LogitsRunner } from './logits-runner.ts'
import type { SequencePositions } from './padding.ts'

export interface Variant {
  readonly dir: string
  readonly images: GoldenImages
  readonly options: SessionOptions
  readonly architecture: Architecture
  readonly processor: Processor
  /** Every weight is trainable, no token is banned. */
  readonly network: Network
  readonly logits: LogitsRunner
  /** Canonical name → name in the checkpoint. */
  readonly storedNames: ReadonlyMap<string, string>
  dispose(): Promise<void>
}

/** A case and what the product makes of its messages and pictures. */
export interface PreparedCase {
  readonly golden: GoldenCase
  readonly inputs: ModelInputs
  readonly features: HostTensor<'float32'> | null
  readonly image: ImageInput
}

/** Throws CheckpointError when the checkpoint cannot be loaded. */
export async function openVariant(dir: string, images: GoldenImages, options: SessionOptions): Promise<Variant> {
  const train = { kind: 'full' } as const
  const { network: loaded, processor, storedNames } = await openModel(join(dir, 'checkpoint'), { ...options, train })
  const architecture = { ...loaded.context.architecture, banned: [] }
  const context = { ...loaded.context, architecture }
  const network = new Network(context, loaded.weights, options)
  const logits = new LogitsRunner(context, options)
  return {
    dir,
    images,
    options,
    architecture,
    processor,
    network,
    logits,
    storedNames,
    dispose: async () => void (await Promise.all([loaded.dispose(), network.dispose(), logits.dispose()])),
  }
}

export const imagePaths = ({ messages }: GoldenCase): string[] =>
  messages.flatMap(({ content }) => content.flatMap((part) => (part.type === 'image' ? [part.path] : [])))

export const chatMessages = ({ messages }: GoldenCase): ChatMessage[] =>
  messages.map(({ role, content }) => ({
    role,
    content: content.map((part) => (part.type === 'image' ? { type: 'image' } : part)),
  }))

/** Reads a case and computes its inputs and image features. */
export async function prepareCase(variant: Variant, name: string): Promise<PreparedCase> {
  const golden = await readJson(join(variant.dir, 'cases', `${name}.json`), caseSchema)
  const files = await Promise.all(imagePaths(golden).map((path) => variant.images.decoded(path)))
  const inputs = await processConversation(variant.processor, chatMessages(golden), files)
  const features = await featuresOf(variant, inputs.pictures)
  return { golden, inputs, features, image: features ? { kind: 'given', features } : { kind: 'none' } }
}

/** float32 [F, hidden]; null without pictures. */
export async function featuresOf(
  { network, architecture }: Variant,
  pictures: readonly Picture[],
): Promise<HostTensor<'float32'> | null> {
  return pictures.length > 0 ? network.features(architecture.vision.passes(pictures)) : null
}

/** The trees of several conversations, whose pictures follow one another; `prompts` under the i-th one. */
export function rootsOf(
  variant: Variant,
  inputs: readonly ModelInputs[],
  prompts: (i: number) => readonly TreePrompt[] = () => [],
): TreeRoot[] {
  let firstFeature = 0
  return inputs.map(({ inputIds, pictures }, i) => {
    const layouts = pictures.map((p) => p.layout)
    const positions = variant.architecture.positions?.(inputIds, layouts)
    const root = { prefix: inputIds, ...(positions && { positions }), firstFeature, prompts: prompts(i) }
    firstFeature += layouts.reduce((n, layout) => n + layout.features, 0)
    return root
  })
}

/** Positions of a conversation that goes on with `tokens`. */
export function positionsOf(variant: Variant, inputs: ModelInputs, tokens: readonly number[] = []): SequencePositions {
  const roots = rootsOf(variant, [inputs], () => [{ tokens, completions: [] }])
  const { positions, positionDims } = packTrees(roots, variant.architecture.imageTokenId)
  return { axes: positionDims.length === 2 ? 1 : positionDims[0]!, values: positions }
}

/** The same tensors under the names of the checkpoint, which goldens use. */
export function underStoredNames({ storedNames }: Variant, weights: Weights): Weights {
  return Object.fromEntries(Object.entries(weights).map(([name, tensor]) => [storedNames.get(name) ?? name, tensor]))
}
