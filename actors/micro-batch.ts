/** A micro-batch of an update as a blob: msgpack of what a model needs to compute its share of the gradient. */
import { Packr } from 'msgpackr'
import { z } from 'zod'
import { blobSchema } from '../bus/messages.ts'
import type { GrpoConfig } from '../models/losses/grpo-config.ts'
import type { ImageSource, PolicyGroup } from '../models/model.ts'

const number = z.number()
const microBatchSchema = z.object({
  /** Under TRL's names (models/losses/grpo-config.ts). */
  loss: z.record(z.string(), z.unknown()),
  groups: z.array(
    z.object({
      image: blobSchema,
      prompt: z.string(),
      role: z.string().optional(),
      completions: z.array(
        z.object({
          tokens: z.array(z.number().int().min(0)),
          logprobs: z.array(number).nullable(),
          advantage: number,
          weight: number,
          count: z.number().int().min(1),
        }),
      ),
    }),
  ),
})

type Groups = z.infer<typeof microBatchSchema>['groups']
export interface MicroBatch {
  readonly loss: GrpoConfig
  readonly groups: readonly Groups[number][]
}

// Plain maps, no records: any msgpack library reads them, and equal batches give equal bytes.
const packr = new Packr({ useRecords: false, variableMapSize: true })

export const encodeMicroBatch = (batch: MicroBatch): Uint8Array => packr.pack(batch)

/** Throws a ZodError for bytes that are not a micro-batch. */
export function decodeMicroBatch(bytes: Uint8Array): MicroBatch {
  const { loss, groups } = microBatchSchema.parse(packr.unpack(bytes))
  return { loss: loss as unknown as GrpoConfig, groups }
}

/** The groups as a model takes them. */
export function policyGroups({ groups }: MicroBatch, image: (blob: string) => ImageSource): PolicyGroup[] {
  return groups.map(({ role, ...group }) => ({
    ...group,
    ...(role !== undefined && { role }),
    image: image(group.image),
  }))
}
