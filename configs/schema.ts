/**
 * The configuration of a run: one schema, the only place where keys, defaults, ranges and meanings are written down.
 * Presets, `--config` files and `--set` give differences to it (configs/load.ts); `config.yaml` of a run is the whole.
 */
import { z } from 'zod'
import { alarmConfigSchema } from '../actors/alarms.ts'
import { MAX_PER_TASK } from '../actors/ids.ts'
import { ACK_WAIT_MS } from '../bus/limits.ts'
import { PRECISIONS } from '../models/layers/precision.ts'
import { EMBEDDING_MODELS } from '../models/similarity/names.ts'
import type { FullGrpoConfig } from '../models/losses/grpo-config.ts'
import { DEVICES } from './devices.ts'
import { WORKERS } from './workers.ts'
import { recipes } from '../actors/rewards/recipes/registry.ts'

/** Marks a path of the file system; load.ts makes it absolute, relative to where it was written. */
export const PATH_MARK = 'visplayPath'
const path = () =>
  z
    .string()
    .min(1)
    .meta({ [PATH_MARK]: true })
const count = () => z.number().int().min(1)
const id = () => z.string().regex(/^[A-Za-z0-9_-]+$/, 'letters, digits, "_" and "-"')

const modelSchema = z.strictObject({
  dir: path()
    .default('models/tiny')
    .describe('Folder of a Hugging Face checkpoint: config.json, *.safetensors, tokenizer'),
  hub: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Its name on the Hugging Face hub, owner/name@commit; null = the folder is not from there'),
  device: z
    .enum(DEVICES)
    .default('auto')
    .describe('Where to compute; "auto" is the CPU, the only device that every test runs on'),
  threads: z.number().int().min(0).default(0).describe('CPU threads of one session; 0 = the cores of the machine'),
  memory: z
    .enum(['auto', 'fast', 'lean'])
    .default('auto')
    .describe('Frozen weights: float32 copies (fast), or 16-bit pages of the files (lean); auto chooses by size'),
  checkMemory: z.boolean().default(true).describe('Refuse a model that does not fit the free memory'),
  train: z
    .enum(['full', 'vision', 'lora'])
    .default('lora')
    .describe(
      'What is trained: every weight, the vision tower and connector, or a LoRA adapter (PEFT) of the text model',
    ),
  lora: z
    .strictObject({
      r: count().default(16).describe('Rank'),
      alpha: z.number().positive().default(32).describe('Scale: the adapter is multiplied by alpha / r'),
      targets: z
        .array(z.string().min(1))
        .min(1)
        .default(['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'])
        .describe('Linear layers of the text model that get an adapter, by the last part of their name'),
    })
    .prefault({})
    .describe('Used when train is "lora"'),
  rollouts: z
    .enum([...PRECISIONS, 'auto'])
    .default('fp32')
    .describe(
      'Precision of the frozen text weights that training samples come from; "auto" is measured when the run begins',
    ),
})

const imagesSchema = z.strictObject({
  dir: path().nullable().default(null).describe('Folder of unlabelled images, searched deeply; null = rendered scenes'),
  maxPixels: count()
    .default(100_000_000)
    .describe('Larger pictures are skipped, and named in the log (width × height of the file)'),
  limit: count().nullable().default(null).describe('Use at most this many images, chosen by the seed; null = all'),
})

const worldSchema = z.strictObject({
  images: count().default(2000).describe('Unlabelled images of the shifted domain to render'),
  evalImages: count().default(400).describe('Held-out labelled images to render, for each domain'),
  seed: z.number().int().min(0).default(0).describe('Seed of the held-out sets, apart from that of the run'),
  severity: z
    .tuple([z.number().min(0).max(1), z.number().min(0).max(1)])
    .default([0.1, 0.8])
    .describe('Least and greatest strength of the shift (textures, gradients, rotations, palettes)'),
})

const evalSchema = z.strictObject({
  file: path()
    .nullable()
    .default(null)
    .describe('Held-out JSONL; null = rendered scenes with rendered images, else none'),
  clean: path().nullable().default(null).describe('Second held-out JSONL, of the domain the model was trained on'),
  every: count().default(10).describe('Steps between probes on a part of the held-out set'),
  probe: count().default(400).describe('Questions of a probe, the same ones each time'),
  samples: count().default(8).describe('Samples per question at temperature 1, for mean1 and maj'),
})

const groupsSchema = z.strictObject({
  images: count().default(64).describe('Images of one step'),
  questions: count().default(2).describe('Questions asked about each image'),
  answers: z.number().int().min(2).default(8).describe('Answers sampled for each question: the size of a group'),
  perTask: count()
    .max(MAX_PER_TASK)
    .default(1)
    .describe('Images of one task: fewer share the work more finely, more cost the bus less'),
})

const generationSchema = z.strictObject({
  maxQuestionTokens: count().default(96).describe('Longest completion of the Questioner, in tokens'),
  maxAnswerTokens: count().default(32).describe('Longest completion of the Reasoner, in tokens'),
  temperature: z.number().min(0).default(1).describe('Of the training samples; other values than 1 bias the ratio'),
})

const QUESTIONER_PROMPT = [
  'Look at the image and write one question that can be answered from the image alone with one or two words,',
  'then its answer. Write exactly:',
  '<type>kind of question</type><question>the question</question><answer>the answer</answer>',
].join(' ')

const promptsSchema = z.strictObject({
  questioner: z.string().min(1).default(QUESTIONER_PROMPT).describe('What the Questioner is told, after the image'),
  reasoner: z
    .string()
    .includes('{question}')
    .default('{question} Answer with one or two words.')
    .describe('What the Reasoner is told, after the image; {question} is replaced'),
})

/** Fields of models/losses/grpo-config.ts, under TRL's names. */
const lossSchema = z.strictObject({
  loss_type: z
    .enum(['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo', 'luspo', 'sapo'])
    .default('dapo')
    .describe('How token losses are clipped and normalised'),
  importance_sampling_level: z.enum(['token', 'sequence']).default('token').describe('What a ratio belongs to'),
  epsilon: z.number().positive().default(0.2).describe('Clip of the ratio'),
  epsilon_high: z.number().positive().nullable().default(null).describe('Upper clip; null = epsilon'),
  delta: z.number().min(1).nullable().default(null).describe('Two-sided clip for negative advantages; null = off'),
  beta: z.number().min(0).default(0).describe('Weight of the k3 KL to the frozen base; 0 = off'),
  use_bias_correction_kl: z.boolean().default(true).describe('Multiplies the KL by the ratio'),
  off_policy_mask_threshold: z
    .number()
    .positive()
    .nullable()
    .default(null)
    .describe('Drops drifted sequences; null = off'),
  top_entropy_quantile: z.number().gt(0).max(1).default(1).describe('Share of tokens that are trained, by entropy'),
  sapo_temperature_neg: z.number().positive().default(1.05).describe('Of loss_type sapo, negative advantages'),
  sapo_temperature_pos: z.number().positive().default(1).describe('Of loss_type sapo, positive advantages'),
  sampler_correction: z
    .enum(['auto', 'token_truncate', 'token_mask', 'sequence_truncate', 'sequence_mask'])
    .nullable()
    .default('auto')
    .describe(
      'Importance sampling against the logprobs of the sampler; null = off; "auto" = off with model.rollouts fp32, else token_truncate, capped at 2 where sampler_cap is null',
    ),
  sampler_cap: z.number().positive().nullable().default(null).describe('Upper bound of its ratio; null = none'),
  sampler_floor: z.number().positive().nullable().default(null).describe('Lower bound of its ratio; null = none'),
}) satisfies z.ZodType<Omit<FullGrpoConfig, 'sampler_correction'>>

const optimizerSchema = z.strictObject({
  lr: z.number().min(0).default(2e-5).describe('Peak learning rate of AdamW'),
  betas: z
    .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
    .default([0.9, 0.95])
    .describe('Decay of the two moments'),
  eps: z.number().positive().default(1e-8).describe('Added to the root of the second moment'),
  weightDecay: z.number().min(0).default(0).describe('Decoupled weight decay'),
  clip: z.number().positive().nullable().default(1).describe('Largest global gradient norm; null = off'),
  schedule: z.enum(['constant', 'linear', 'cosine']).default('constant').describe('After the warm-up'),
  warmup: z.number().int().min(0).default(20).describe('Steps of linear warm-up'),
})

const trainSchema = z.strictObject({
  recompute: z
    .union([z.literal('auto'), z.boolean()])
    .default('auto')
    .describe('Compute activations again in the backward pass (gradient checkpointing): less memory, a third slower'),
  microBatchImages: count().default(16).describe('Images of one gradient task; micro-batches are summed in order'),
  maxLag: z
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('Groups sampled more versions ago than this are dropped, and logged'),
  roleWeights: z
    .strictObject({
      questioner: z.number().min(0).default(1).describe('0 = the Questioner is not trained'),
      reasoner: z.number().min(0).default(1).describe('0 = the Reasoner is not trained'),
    })
    .prefault({})
    .describe('Weight of each role in the loss'),
})

const busSchema = z.strictObject({
  nats: z
    .string()
    .regex(/^(nats|tls):\/\//, 'a URL such as nats://127.0.0.1:4222')
    .nullable()
    .default(null)
    .describe('URL of a running NATS server; null = start one for this run'),
  port: z
    .number()
    .int()
    .min(1)
    .max(65535)
    .nullable()
    .default(null)
    .describe('Port of the started server; null = a free one'),
  listen: z
    .string()
    .min(1)
    .default('127.0.0.1')
    .describe('Address the started server listens on; 0.0.0.0 = every interface'),
  ackWait: z
    .number()
    .min(1)
    .max(3600)
    .default(ACK_WAIT_MS / 1000)
    .describe('Seconds until the work of a process that died goes to another; a live one renews its claim by itself'),
  blobs: z
    .enum(['auto', 'server'])
    .default('auto')
    .describe(
      'Where weights, gradients and images are: files in the folder of the run, which every process of this machine finds, or on the NATS server; auto = on the server where other machines can join',
    ),
  creds: path()
    .nullable()
    .default(null)
    .describe('Credentials file for the server of bus.nats; null = as its URL says'),
  tls: z
    .strictObject({
      cert: path()
        .nullable()
        .default(null)
        .describe('Certificate (PEM, with its chain) of the started server, which then speaks TLS only; null = no TLS'),
      key: path().nullable().default(null).describe('Its private key (PEM)'),
      ca: path()
        .nullable()
        .default(null)
        .describe('Certificate of the authority that others must trust; null = itself, or one that systems trust'),
    })
    .prefault({})
    .describe('Encryption'),
})

const similaritySchema = z.strictObject({
  kind: z
    .enum(['embedding', 'exact'])
    .default('embedding')
    .describe('How alike two answers are: by embeddings, or equal after normalisation or not at all'),
  model: z
    .union([z.enum(EMBEDDING_MODELS), path(), z.null()])
    .default(null)
    .describe(
      'A model of fastembed by name, fetched once, or a directory of its files, with a calibration.json or measured on ' +
        'known words; null = the shipped word embeddings',
    ),
})

/** Each recipe brings its own schema, so that adding one changes nothing here. */
const recipeKnobs: Readonly<Record<string, z.ZodType>> = Object.fromEntries(
  Object.entries(recipes).map(([name, { configSchema }]) => [name, configSchema.prefault({})]),
)

export const configSchema = z.strictObject({
  run: id().nullable().default(null).describe('Name of the run; null = from date and time'),
  out: path().nullable().default(null).describe('Folder of the run; null = runs/<run> in the current folder'),
  seed: z.number().int().min(0).default(0).describe('Seed of everything that is drawn'),
  steps: z.number().int().min(0).default(60).describe('Optimizer updates'),
  model: modelSchema.prefault({}).describe('The model that evolves'),
  images: imagesSchema.prefault({}).describe('Unlabelled images to learn from'),
  world: worldSchema.prefault({}).describe('Rendered scenes; used when images.dir is null'),
  eval: evalSchema.prefault({}).describe('Held-out evaluation; never seen by a reward'),
  groups: groupsSchema.prefault({}).describe('Size of a step'),
  generation: generationSchema.prefault({}).describe('Sampling of the training completions'),
  prompts: promptsSchema.prefault({}).describe('Texts of the two roles'),
  recipe: z.enum(Object.keys(recipes)).default('consensus').describe('How rewards are composed'),
  recipes: z.strictObject(recipeKnobs).prefault({}).describe('Knobs of each recipe'),
  similarity: similaritySchema.prefault({}).describe('Where answers and questions are compared by meaning'),
  loss: lossSchema.prefault({}).describe('GRPO'),
  optimizer: optimizerSchema.prefault({}).describe('AdamW and its schedule'),
  train: trainSchema.prefault({}).describe('How a step is computed'),
  workers: z
    .array(z.enum(WORKERS))
    .default([...WORKERS])
    .describe('Workers in the process that starts the run; what is left out is left to processes that join'),
  bus: busSchema.prefault({}).describe('The NATS server'),
  keepVersions: count().default(3).describe('Versions whose weights are kept besides the base and the best'),
  alarms: alarmConfigSchema.prefault({}).describe('Thresholds of the alarms'),
  stopOnAlarm: z.boolean().default(false).describe('End the run at the best version when an alarm is raised'),
})

export type Config = z.infer<typeof configSchema>
