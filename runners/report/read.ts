/** Reads the folder of a run, so that a report can be made at any time: while it goes on, after it, after a crash. */
import { readFile } from 'node:fs/promises'
import { basename, join, resolve, sep } from 'node:path'
import type { z } from 'zod'
import { galleryLineSchema, metricsLineSchema } from '../../actors/run-files.ts'
import type { GalleryLine, MetricsLine } from '../../actors/run-files.ts'
import { readConfig } from '../../configs/load.ts'
import type { Config } from '../../configs/schema.ts'
import { withoutSecrets } from '../../configs/secrets.ts'
import type { AlarmLine, BeforeAfter, DeadLine, EvalLine, GalleryItem, ReportData, StepLine } from './data.ts'
import { pickGallery } from './pick.ts'
import { thumbnail } from './thumbnail.ts'

const TRAINING: Readonly<Record<Config['model']['train'], (config: Config) => string>> = {
  full: () => 'all weights',
  vision: () => 'vision tower and connector',
  lora: ({ model }) => `LoRA r=${model.lora.r}`,
}

/** Throws when there is no `config.yaml`; everything else may be missing. */
export async function readReportData(runDir: string): Promise<ReportData> {
  const configFile = join(runDir, 'config.yaml')
  const config = readConfig(configFile)
  const metrics = await readLines(join(runDir, 'metrics.jsonl'), metricsLineSchema)
  const gallery = await readLines(join(runDir, 'gallery.jsonl'), galleryLineSchema)
  const lines = firstOfEach(metrics.lines)
  const steps = lines.filter((l): l is StepLine => l.event === 'step').sort((a, b) => a.step - b.step)
  const evals = lines.filter((l): l is EvalLine => l.event === 'eval').sort((a, b) => a.weights - b.weights)
  const items = pickGallery(gallery.lines)
  const { pictures, lost } = await readPictures(runDir, items)
  return {
    run: config.run ?? basename(resolve(runDir)),
    config: withoutSecrets(await readFile(configFile, 'utf8')),
    facts: {
      model: basename(config.model.dir),
      training: TRAINING[config.model.train](config),
      recipe: config.recipe,
      seed: String(config.seed),
      steps: `${steps.length} of ${config.steps}`,
      ...duration(lines),
    },
    steps,
    evals,
    beforeAfter: beforeAfter(evals),
    alarms: lines.filter((l): l is AlarmLine => l.event === 'alarm'),
    dead: lines.filter((l): l is DeadLine => l.event === 'dead'),
    gallery: items.map((item) => toItem(item, pictures)),
    pictures,
    unreadable: metrics.unreadable + gallery.unreadable + lost,
  }
}

async function readLines<T>(file: string, schema: z.ZodType<T>): Promise<{ lines: T[]; unreadable: number }> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw error
  })
  const parsed = text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => schema.safeParse(parseJson(line)))
  const lines = parsed.flatMap((p) => (p.success ? [p.data] : []))
  return { lines, unreadable: parsed.length - lines.length }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

/** A resumed run may write a fact twice; as in the log, the first one counts. */
function firstOfEach(lines: readonly MetricsLine[]): MetricsLine[] {
  const seen = new Set<string>()
  return lines.filter((line) => {
    const key = identity(line)
    return seen.has(key) ? false : seen.add(key)
  })
}

function identity(line: MetricsLine): string {
  switch (line.event) {
    case 'step':
      return `step ${line.step}`
    case 'eval':
      return `eval ${line.set} ${line.weights} ${line.probe}`
    case 'alarm':
      return `alarm ${line.name} ${line.step}`
    case 'dead':
      return `dead ${line.kind} ${line.id}`
  }
}

function duration(lines: readonly MetricsLine[]): Record<string, string> {
  const times = lines.map((l) => Date.parse(l.at))
  if (times.length < 2) return {}
  const seconds = (Math.max(...times) - Math.min(...times)) / 1000
  const started = new Date(Math.min(...times)).toISOString().slice(0, 16).replace('T', ' ')
  return {
    time: seconds < 120 ? `${seconds.toFixed(0)} s` : `${(seconds / 60).toFixed(1)} min`,
    started: `${started} UTC`,
  }
}

/** Of each set that was measured whole at two versions. */
function beforeAfter(evals: readonly EvalLine[]): BeforeAfter[] {
  const whole = evals.filter((e) => !e.probe)
  return [...new Set(whole.map((e) => e.set))].flatMap((set) => {
    const [before, after] = [whole.find((e) => e.set === set)!, whole.findLast((e) => e.set === set)!]
    return before.weights === after.weights ? [] : [{ set, before, after }]
  })
}

async function readPictures(
  runDir: string,
  items: readonly GalleryLine[],
): Promise<{ pictures: Record<string, string>; lost: number }> {
  const pictures: Record<string, string> = {}
  let lost = 0
  for (const picture of new Set(items.map((i) => i.picture))) {
    const file = resolve(runDir, picture)
    // A line of a foreign run folder must not make the report read files elsewhere.
    const uri = file.startsWith(resolve(runDir) + sep) ? await thumbnail(file) : null
    if (uri === null) lost++
    else pictures[picture] = uri
  }
  return { pictures, lost }
}

function toItem(line: GalleryLine, pictures: Readonly<Record<string, string>>): GalleryItem {
  return { ...line, picture: line.picture in pictures ? line.picture : null }
}
