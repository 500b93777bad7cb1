/** One golden variant, opened: its checkpoint as the product loads it, and its files. */
import { join } from 'node:path'
import type { ChatMessage } from '../../../io/chat-template.ts'
import { readJson } from '../../../io/json-file.ts'
import type { SessionOptions } from '../../../runtime/session.ts'
import type { HostTensor } from '../../../tensor.ts'
import type { SmolVlmConfig } from '../config.ts'
import { loadSmolVlm } from '../load.ts'
import { type ImageInput, Network, type Pixels } from '../network.ts'
import type { ModelInputs, SmolVlmProcessor } from '../processor.ts'
import { caseSchema, type GoldenCase } from './golden-files.ts'
import type { GoldenImages } from './golden-images.ts'
import { LogitsRunner } from './logits-runner.ts'

export interface Variant {
  readonly dir: string
  readonly images: GoldenImages
  readonly options: SessionOptions
  readonly config: SmolVlmConfig
  readonly processor: SmolVlmProcessor
  /** Every weight is trainable, no token is banned. */
  readonly network: Network
  readonly logits: LogitsRunner
  dispose(): Promise<void>
}

/** A case and what the product makes of its messages and pictures. */
export interface PreparedCase {
  readonly golden: GoldenCase
  readonly inputs: ModelInputs
  readonly pixels: Pixels
  readonly features: HostTensor<'float32'> | null
  readonly image: ImageInput
}

/** Throws CheckpointError when the checkpoint cannot be loaded. */
export async function openVariant(dir: string, images: GoldenImages, options: SessionOptions): Promise<Variant> {
  const { network: loaded, processor } = await loadSmolVlm(join(dir, 'checkpoint'), {
    ...options,
    train: { kind: 'full' },
  })
  const context = { ...loaded.context, banned: [] }
  const network = new Network(context, loaded.weights, options)
  const logits = new LogitsRunner(context, options)
  return {
    dir,
    images,
    options,
    config: context.config,
    processor,
    network,
    logits,
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
  const pictures = await Promise.all(imagePaths(golden).map((path) => variant.images.decoded(path)))
  const inputs = await variant.processor.process(chatMessages(golden), pictures)
  const pixels = pixelsOf([inputs])
  const features = inputs.tiles > 0 ? await variant.network.features(pixels) : null
  return { golden, inputs, pixels, features, image: features ? { kind: 'given', features } : { kind: 'none' } }
}

/** Pixels of several conversations, one after the other. */
export function pixelsOf(inputs: readonly ModelInputs[]): Pixels {
  const data = new Float32Array(inputs.reduce((n, i) => n + i.pixelValues.length, 0))
  let at = 0
  for (const { pixelValues } of inputs) {
    data.set(pixelValues, at)
    at += pixelValues.length
  }
  const { height, width } = inputs[0]!
  return { data, tiles: inputs.reduce((n, i) => n + i.tiles, 0), height, width }
}
