/**
 * The wire: every message of visplay, as one zod schema each. Types are inferred from here and nowhere else; the
 * published JSON Schema / AsyncAPI document is generated from here as well.
 *
 * A message is `{schema, version, traceparent, at, by, data}`: `schema` names the entry below, `version` is the
 * version of that schema (an unknown one is rejected visibly), `traceparent` is W3C trace context, `at` ISO time,
 * `by` the sending actor as `role.instance`. In `data`, `weights` is always a version of the model.
 */
import { z } from 'zod'

export const SCHEMA_VERSION = 2

/** Ids and names that become a token of a subject. */
export const idSchema = z.string().regex(/^[A-Za-z0-9_-]+$/, 'ids match [A-Za-z0-9_-]+')
export const blobSchema = z.string().regex(/^sha256-[0-9a-f]{64}$/, 'a blob is named sha256-<64 hex digits>')
const weights = z.number().int().min(0)
const step = z.number().int().min(0)

/** One sample of a prompt. `logprobs[t]` belongs to `tokens[t]`; `finished` = the end token was sampled (and is the last token). */
export const completionSchema = z.object({
  id: idSchema,
  text: z.string(),
  tokens: z.array(z.number().int().min(0)),
  logprobs: z.array(z.number()),
  finished: z.boolean(),
})
export type Completion = z.infer<typeof completionSchema>

/** How the prompt was encoded: enough to rebuild the token tree for scoring and training. */
export const promptSchema = z.object({ image: blobSchema, text: z.string() })

/**
 * Work, by kind `role.what`. Work of the loop comes as several items in one task, each with a result of its own; a task
 * of which an item fails is divided (see divide.ts).
 */
export const taskSchemas = {
  /** Write questions about some images of a step. `expects`: images of this step, so that a batch can wait for all. */
  'questioner.images': z.object({
    step,
    expects: z.number().int().min(1),
    minWeights: weights,
    /** `id` is that of the `questions` event; `index` is the place in the step. */
    images: z
      .array(z.object({ id: idSchema, index: z.number().int().min(0), image: blobSchema, name: z.string() }))
      .min(1),
  }),
  /** Answer some questions of a step. */
  'reasoner.questions': z.object({
    step,
    minWeights: weights,
    /** `group` is the id of the `answers` event. */
    questions: z
      .array(z.object({ group: idSchema, image: blobSchema, question: z.string(), silver: z.string() }))
      .min(1),
  }),
  /** Judge some questions of a step with their answers. */
  'judge.groups': z.object({
    step,
    /** `group` is the id of the `verdict` event; `questions` and `answers` name events, `answers` is null for a malformed question. */
    groups: z.array(z.object({ group: idSchema, questions: idSchema, answers: idSchema.nullable() })).min(1),
  }),
  /** Sample. `cohort` groups requests that should share a forward pass; flushed early once `size` prompts have arrived. */
  'model.generate': z.object({
    /** Names the random numbers of the samples and begins their ids; the id of the request if left out. */
    key: idSchema.optional(),
    /** null = a prompt without an image. */
    image: blobSchema.nullable(),
    prompt: z.string(),
    samples: z.number().int().min(1),
    maxNewTokens: z.number().int().min(1),
    temperature: z.number().min(0),
    seed: z.number().int(),
    minWeights: weights,
    cohort: z.object({ id: idSchema, size: z.number().int().min(1) }).nullable(),
    /** Weights to use instead of the head (evaluation of a past version); null = newest, at least `minWeights`. */
    weights: weights.nullable(),
    /** A sample to learn from: it may come from weights rounded as the run's `model.rollouts` says; else the exact ones. */
    rollout: z.boolean().optional(),
    /** Further prompts sampled under the same settings, for bulk work; their completions follow in this order. */
    also: z.array(promptSchema.extend({ key: idSchema.optional() })).optional(),
  }),
  /** Score given completions of a prompt under the current weights. */
  'model.logprobs': z.object({
    image: blobSchema,
    prompt: z.string(),
    completions: z.array(z.array(z.number().int().min(0))),
    minWeights: weights,
  }),
  /** Gradient of one micro-batch; the batch itself is a msgpack blob (see actors/optimizer). */
  'model.gradient': z.object({ step, index: z.number().int().min(0), batch: blobSchema, weights }),
} as const
export type TaskKind = keyof typeof taskSchemas
export type Task<K extends TaskKind> = z.infer<(typeof taskSchemas)[K]>

/** What a questioner completion says. `malformed` gives the reason instead of being a question. */
export const questionSchema = z.object({
  group: idSchema,
  completion: completionSchema,
  question: z.string(),
  silver: z.string(),
  type: z.string(),
  malformed: z.string().nullable(),
})
export type Question = z.infer<typeof questionSchema>

/** The truth: append-only, effective once (lowest sequence of an id wins). */
export const eventSchemas = {
  /** An image entered the run. */
  image: z.object({ image: blobSchema, name: z.string(), bytes: z.number().int() }),
  /** Result of one image of `questioner.images`. */
  questions: z.object({
    step,
    index: z.number().int().min(0),
    expects: z.number().int().min(1),
    image: blobSchema,
    name: z.string(),
    prompt: z.string(),
    weights,
    questions: z.array(questionSchema),
  }),
  /** Result of one question of `reasoner.questions`; `parsed[g]` is the final answer of `completions[g]`, null when malformed. */
  answers: z.object({
    step,
    group: idSchema,
    image: blobSchema,
    prompt: z.string(),
    weights,
    completions: z.array(completionSchema),
    parsed: z.array(z.string().nullable()),
  }),
  /** Rewards of one question and its group of answers. */
  verdict: z.object({
    step,
    group: idSchema,
    /** Who judged: the recipe, or an actor of the user's; `similarity` is how it compared texts, if it did. */
    judge: z.object({ name: z.string(), version: z.string(), similarity: z.string().optional() }),
    recipe: z.string(),
    questioner: z.object({ reward: z.number(), parts: z.record(z.string(), z.number()) }),
    /** null for a malformed question. `keep` false: the group is not trained, `dropped` says why. */
    reasoner: z
      .object({
        rewards: z.array(z.number()),
        keep: z.boolean(),
        dropped: z.string().nullable(),
        agreement: z.number(),
        majority: z.string().nullable(),
        share: z.number(),
      })
      .nullable(),
  }),
  /** One optimizer update, appended after the head moved. */
  step: z.object({
    step,
    weights,
    metrics: z.record(z.string(), z.number().nullable()),
    groups: z.array(idSchema),
    seconds: z.number(),
  }),
  /** A committed version: a copy of the head. */
  version: z.object({
    weights,
    parent: weights.nullable(),
    adapter: blobSchema,
    optimizer: blobSchema,
    epoch: z.number().int(),
    consumed: z.array(idSchema),
  }),
  eval: z.object({
    weights,
    set: z.string(),
    n: z.number().int(),
    mean1: z.number(),
    greedy: z.number(),
    maj: z.number(),
    byType: z.record(z.string(), z.object({ n: z.number(), mean1: z.number(), greedy: z.number(), maj: z.number() })),
    probe: z.boolean(),
  }),
  /** Judged or sampled, yet not trained, and why. */
  dropped: z.object({ step, group: idSchema, reason: z.string() }),
  /** A task given up after its last delivery. */
  dead: z.object({
    kind: z.string(),
    id: idSchema,
    cause: z.string(),
    deliveries: z.number().int(),
    /** The message of the task as it was, for whoever wants to see it or to put it on the queue again. */
    task: blobSchema.optional(),
  }),
  /** A task that had been given up is on the queue again: its `dead` event counts no more. */
  retried: z.object({ kind: z.string(), id: idSchema, attempt: z.number().int().min(1) }),
  /** Something a person should look at (collapse, dead letter, corrupt blob). */
  alarm: z.object({ step, name: z.string(), message: z.string(), value: z.number() }),
  /** What an actor of the user's says about something: `about` is an id of the run. */
  remark: z.object({ name: z.string(), version: z.string(), about: idSchema, data: z.json() }),
  /** Replies of the model actors, durable so that a restarted caller finds them. */
  generated: z.object({
    weights,
    device: z.string(),
    seconds: z.number(),
    promptTokens: z.number().int(),
    completions: z.array(completionSchema),
    /** Why there are no completions: prompts of a rollout could not be sampled together. Ask for each of them alone. */
    error: z.string().optional(),
  }),
  logprobs: z.object({ weights, device: z.string(), seconds: z.number(), logprobs: z.array(z.array(z.number())) }),
  gradient: z.object({
    weights,
    device: z.string(),
    seconds: z.number(),
    step,
    index: z.number().int().min(0),
    gradient: blobSchema,
    loss: z.number(),
    tokens: z.number().int(),
    metrics: z.record(z.string(), z.number()),
  }),
} as const
export type EventName = keyof typeof eventSchemas
export type EventData<E extends EventName> = z.infer<(typeof eventSchemas)[E]>

/** Lossy, for watching only. */
export const liveSchemas = {
  heartbeat: z.object({ state: z.string(), weights: weights.nullable(), inFlight: z.number().int() }),
  progress: z.object({ message: z.string(), values: z.record(z.string(), z.number()) }),
  transition: z.object({ actor: z.string(), from: z.string(), to: z.string(), event: z.string() }),
} as const
export type LiveKind = keyof typeof liveSchemas
export type LiveData<K extends LiveKind> = z.infer<(typeof liveSchemas)[K]>

/** KV `head`: the committed version; moved by compare-and-set only. */
export const headSchema = z.object({
  version: weights,
  parent: weights.nullable(),
  adapter: blobSchema,
  optimizer: blobSchema,
  epoch: z.number().int(),
  /** Groups whose verdicts this version consumed. */
  consumed: z.array(idSchema),
})
export type Head = z.infer<typeof headSchema>

/** Values of the key-value store: `head`, and small documents such as `config`. */
export const valueSchemas = { head: headSchema, document: z.json() } as const

/** The envelope of every message. */
export const envelopeSchema = z.object({
  schema: z.string(),
  version: z.number().int(),
  traceparent: z.string().regex(/^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/),
  at: z.iso.datetime(),
  by: z.string(),
  data: z.unknown(),
})
export type Envelope<T> = Omit<z.infer<typeof envelopeSchema>, 'data'> & { data: T }
