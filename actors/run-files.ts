/**
 * What a run leaves in its folder for people and tools: `metrics.jsonl` (curves) and `gallery.jsonl` (what the roles
 * said), one JSON object per line. The Recorder writes them from the log, the report reads them.
 */
import { z } from 'zod'
import { eventSchemas } from '../bus/messages.ts'

const at = z.iso.datetime()

/** A line of `metrics.jsonl`: an event of the log with its name and time. */
export const metricsLineSchema = z.discriminatedUnion('event', [
  eventSchemas.step.extend({ event: z.literal('step'), at }),
  eventSchemas.eval.extend({ event: z.literal('eval'), at }),
  eventSchemas.alarm.extend({ event: z.literal('alarm'), at }),
  eventSchemas.dead.extend({ event: z.literal('dead'), at }),
])
export type MetricsLine = z.infer<typeof metricsLineSchema>

/** A line of `gallery.jsonl`: one question, its answers and its verdict. */
export const galleryLineSchema = z.object({
  step: z.number().int().min(0),
  group: z.string(),
  /** Version that sampled. */
  weights: z.number().int().min(0),
  /** Name of the image file, for people. */
  name: z.string(),
  /** The picture: a path relative to the run's folder. */
  picture: z.string(),
  question: z.string(),
  silver: z.string(),
  type: z.string(),
  /** Why the question is malformed (then `question` is what the model wrote), or null. */
  malformed: z.string().nullable(),
  /** Distinct final answers, most frequent first; null where none could be read. */
  answers: z.array(z.object({ text: z.string().nullable(), count: z.number().int().min(1), reward: z.number() })),
  questioner: eventSchemas.verdict.shape.questioner,
  /** null for a malformed question. */
  reasoner: z
    .object({
      keep: z.boolean(),
      dropped: z.string().nullable(),
      agreement: z.number(),
      majority: z.string().nullable(),
      share: z.number(),
    })
    .nullable(),
})
export type GalleryLine = z.infer<typeof galleryLineSchema>
