/**
 * What a family of vision-language models must supply. Everything else (token trees, text model, sampling, scoring,
 * updates, caches, verification) is shared. A family is one folder and one line in registry.ts.
 */
import type { Value } from '../graph/graph.ts'
import type { ChatMessage } from '../io/chat-template.ts'
import type { RgbImage } from '../io/image.ts'
import type { Tokenizer } from '../io/tokenizer.ts'
import type { Parameters } from '../layers/parameters.ts'
import type { TextArchitecture } from '../layers/text-config.ts'
import type { ExpectedWeight } from '../layers/weights.ts'
import type { PictureSizes, VisionSizes } from '../memory/estimate.ts'
import type { TensorMap } from '../tensor.ts'
import type { PrefixPositions } from '../tree/pack.ts'

/** One architecture, or several `model_type`s that differ in names only. */
export interface Family {
  /**
   * Reads config, tokenizer and processor settings of a checkpoint folder.
   *
   * @throws CheckpointError when a file is missing or the files do not fit each other.
   */
  open(dir: string): Promise<OpenedFamily>
  /**
   * The name of a tensor of a checkpoint file as transformers 5 names it in the model (and PEFT behind
   * `base_model.model.`): one name for all layouts of checkpoints. Names that are no weight of the model pass through.
   */
  canonicalName(stored: string): string
}

/** A checkpoint folder without its weights. */
export interface OpenedFamily {
  readonly architecture: Architecture
  readonly processor: Processor
  readonly visionSizes: VisionSizes
  /** What a picture of this many pixels becomes, from arithmetic alone. */
  pictureSizes(size: { readonly width: number; readonly height: number }): PictureSizes
}

/** What graphs are built from. */
export interface Architecture {
  /** Name of the family. */
  readonly family: string
  readonly text: TextArchitecture
  /** The placeholder of one row of image features. */
  readonly imageTokenId: number
  /** Tokens that end an answer. */
  readonly eosTokenIds: readonly number[]
  readonly padTokenId: number | undefined
  /** Tokens that must never be sampled: placeholders and marks of pictures. */
  readonly banned: readonly number[]
  /** Every weight that a checkpoint must hold, under canonical names. */
  readonly weights: readonly ExpectedWeight[]
  /** Canonical names of the weights that image features depend on. */
  readonly visionWeights: RegExp
  readonly vision: Vision
  /**
   * Positions of the tokens of a prefix, in which all pictures lie (in the order of `layouts`). Left out where a token
   * stands at its depth; with M-RoPE needed for every prefix, one without pictures as well.
   */
  positions?(prefix: readonly number[], layouts: readonly PictureLayout[]): PrefixPositions
}

/** From the inputs of pictures to their features. */
export interface Vision {
  /** The inputs of several pictures as those of one pass, which can be differentiated. */
  join(pictures: readonly Picture[]): VisionInput
  /** The same as passes of bounded memory; their features follow one another. */
  passes(pictures: readonly Picture[]): VisionInput[]
  /**
   * The graph for `input` and for every other of the same `graph`: declares the feeds as graph inputs.
   *
   * @returns float32 [F, hidden], in the order of the placeholders of the pictures.
   */
  features(params: Parameters, input: VisionInput): Value
  /** The graph for other runtimes: declares as graph inputs what the processor of transformers returns for pictures. */
  encoder(params: Parameters): VisionEncoder
}

export interface VisionEncoder {
  /** float32 [..., hidden], in the order of the placeholders. */
  readonly features: Value
  /** What each graph input is, for people. */
  readonly inputs: Readonly<Record<string, string>>
}

/** Feeds of the vision graph; `pixels` (float32) is among them. */
export interface VisionInput {
  /** Inputs with equal keys are served by one graph. */
  readonly graph: string
  readonly feeds: TensorMap
}

/** What a prompt, and the positions of its tokens, depend on of a picture. */
export interface PictureLayout {
  /** Rows of image features, which is the number of placeholders. */
  readonly features: number
  /** The grid that the picture was cut into: tiles or merged patches, as the family has it. */
  readonly rows: number
  readonly cols: number
}

/** A picture as its family's vision graph takes it. */
export interface Picture {
  readonly layout: PictureLayout
  /** All pixels after resizing, padding and cutting, before normalisation, in the order of the pixels among `inputs`. */
  readonly uint8: Uint8Array
  /** This picture's part of the feeds of the vision graph. */
  readonly inputs: TensorMap
  /** Height and width of the decoded picture, where the processor of transformers passes them on. */
  readonly size?: readonly [height: number, width: number]
}

/** Token ids of a prompt, cut so that all prompts about one picture share `prefix`. */
export interface SplitPrompt {
  /** The rendered chat, a placeholder for each picture. */
  readonly prompt: string
  /** Up to and including the last token of the last picture; without pictures, the first token. */
  readonly prefix: readonly number[]
  readonly suffix: readonly number[]
}

/** Chats to token ids (prompts.ts). */
export interface PromptSplitter {
  /** The prompt of one user turn, the picture first; names of special tokens are removed from `text`. */
  splitPrompt(text: string, layout: PictureLayout | null): SplitPrompt
  /** The prompt of a conversation, the generation prompt added; `layouts` are those of its pictures in order. */
  splitMessages(messages: readonly ChatMessage[], layouts: readonly PictureLayout[]): SplitPrompt
}

/** Pictures and messages to inputs, as the family's processor in transformers (its Pillow variant) does it. */
export interface Processor {
  readonly tokenizer: Tokenizer
  readonly prompts: PromptSplitter
  /** All steps behind the decoder. Throws a RangeError for a picture that the model cannot take. */
  preparePicture(image: RgbImage): Picture
  /**
   * The image settings that a checkpoint's file states as transformers reports them, with defaults filled in and older
   * names replaced. Left out where files state everything.
   */
  reportedSettings?(stated: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>>
  /** What the processor of transformers returns for the pictures of one conversation: goldens hold it. */
  reference(pictures: readonly Picture[]): ReferenceInputs
}

/** Under the names of transformers. */
export interface ReferenceInputs {
  /** Small values that are equal or wrong (grids, sizes). */
  readonly fields: Readonly<Record<string, unknown>>
  /** Whole numbers of tensors. */
  readonly tensors: Readonly<Record<string, ArrayLike<number>>>
  /** null without pictures. */
  readonly pixels: ReferencePixels | null
}

export interface ReferencePixels {
  readonly shape: readonly number[]
  readonly uint8: Uint8Array
  readonly values: Float32Array
}
