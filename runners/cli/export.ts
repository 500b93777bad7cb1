/** `visplay export`: a run for other tools. */
import { Option } from 'commander'
import type { Command } from 'commander'
import { existsSync, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Tap } from '../../bus/nats/tap.ts'
import type { Config } from '../../configs/schema.ts'
import { UsageError } from './fail.ts'
import { interruptible } from './interrupt.ts'
import { modelDir } from './model-dir.ts'
import { MODEL } from './model-options.ts'
import { integer, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import type { Output } from './output.ts'
import { chosenRun } from './run-folder.ts'

const FORMATS = ['ndjson', 'parquet', 'peft', 'merged', 'onnx'] as const
type Format = (typeof FORMATS)[number]

interface Options extends CommonOptions {
  readonly format?: Format
  readonly ndjson?: true
  readonly parquet?: true
  readonly out?: string
  readonly weights?: number
  readonly model?: string
  readonly adapter?: string
}

export function command(): Command {
  const about = [
    'Hands a run to other tools. ndjson: every record of its log as a line of JSON. parquet: tables of it (records,',
    'completions, metrics, evals) for pandas or DuckDB. peft: the adapter of a version, for PEFT. merged: a version as a',
    'whole checkpoint, for transformers. onnx: a version, or a checkpoint that --model names, as ONNX files in float32 for',
    'onnxruntime in any language and for transformers.js. Works while the run goes on as well.',
  ].join('\n')
  return newCommand('export', about, [
    ['my-run --ndjson > run.ndjson', 'every record, one JSON object per line'],
    ['my-run --parquet --out tables', 'duckdb -c "from \'tables/completions.parquet\'"'],
    ['my-run --format merged --out model', 'the newest version, whole'],
    ['my-run --format peft --weights 20', 'the adapter of version 20'],
    ['my-run --format onnx --out web', 'the newest version; web/onnx/manifest.json says what goes in and comes out'],
    ['--model HuggingFaceTB/SmolVLM-256M-Instruct --format onnx --out web', 'no run'],
  ])
    .argument('[run]', 'name or folder of a run; the newest in runs/ if left out')
    .addOption(new Option('--format <format>', 'what to write').choices(FORMATS))
    .option('--ndjson', 'the same as --format ndjson: on stdout unless --out says otherwise')
    .option('--parquet', 'the same as --format parquet')
    .option('--out <path>', 'file (ndjson) or folder; in the folder of the run if left out')
    .option('--weights <version>', 'version for peft, merged and onnx; the newest if left out', integer(0))
    .option('--model <dir>', `onnx of a model instead of a run: ${MODEL}`)
    .option('--adapter <dir>', 'with --model: folder of a PEFT adapter that is folded in')
    .action(run)
}

async function run(name: string | undefined, options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  const format = formatOf(options)
  if (options.model !== undefined) return exportModel(name, options.model, options, output)
  if (options.adapter !== undefined) throw new UsageError('--adapter goes with --model')
  const folder = chosenRun(name)
  const [{ openTap }, { readConfig }] = await Promise.all([import('../tap/open.ts'), import('../../configs/load.ts')])
  const config = readConfig(join(folder, 'config.yaml'))
  const { tap, close } = await openTap(undefined, folder)
  try {
    await interruptible((signal) => write[format]({ tap, folder, config, options, output, signal }))
  } finally {
    await close()
  }
}

function formatOf({ format, ndjson, parquet }: Options): Format {
  const chosen = [format, ndjson && 'ndjson', parquet && 'parquet'].filter((f) => f !== undefined)
  if (chosen.length === 1) return chosen[0] as Format
  throw new UsageError(`choose one of ${FORMATS.map((f) => `--format ${f}`).join(', ')}`)
}

interface Job {
  readonly tap: Tap
  readonly folder: string
  readonly config: Config
  readonly options: Options
  readonly output: Output
  readonly signal: AbortSignal
}

const write: Readonly<Record<Format, (job: Job) => Promise<void>>> = {
  ndjson: async (job) => {
    const { out } = job.options
    const file = out === undefined || out === '-' ? null : resolve(out)
    const { writeNdjson } = await import('../export/ndjson.ts')
    const records = await writeNdjson(await recordsOf(job), file)
    if (file === null) return
    job.output.data({ event: 'done', out: file, records })
    job.output.text(`${records} records in ${file}`)
  },
  parquet: async (job) => {
    const dir = resolve(job.options.out ?? join(job.folder, 'parquet'))
    const [{ writeParquet }, { TABLES }] = await Promise.all([
      import('../export/parquet.ts'),
      import('../export/tables.ts'),
    ])
    refuseForeign(
      dir,
      Object.keys(TABLES).map((table) => `${table}.parquet`),
    )
    const rows = await writeParquet(await recordsOf(job), job.config.groups.images, dir)
    job.output.data({ event: 'done', out: dir, rows })
    for (const [table, count] of Object.entries(rows)) job.output.text(`${count} rows in ${join(dir, table)}.parquet`)
  },
  peft: (job) => writeVersion(job, 'peft'),
  merged: (job) => writeVersion(job, 'merged'),
  onnx: (job) => writeVersion(job, 'onnx'),
}

/** A checkpoint folder as it is, or with an adapter. */
async function exportModel(run: string | undefined, model: string, options: Options, output: Output): Promise<void> {
  if (formatOf(options) !== 'onnx')
    throw new UsageError('--model goes with --format onnx; name a run for other formats')
  if (run !== undefined || options.weights !== undefined)
    throw new UsageError('--model takes the place of a run and its version: leave those out')
  if (options.out === undefined) throw new UsageError('say with --out where the files go')
  const to = resolve(options.out)
  refuseForeign(to, [])
  const [{ writeOnnxExport }, { readAdapter }, { dir }] = await Promise.all([
    import('../export/onnx.ts'),
    import('../../models/vlm/lora.ts'),
    modelDir(model),
  ])
  const adapter = options.adapter === undefined ? null : await readAdapter(resolve(options.adapter))
  const trained = { lora: adapter?.shape ?? null, weights: adapter?.weights ?? {} }
  await interruptible(async (signal) => {
    const { bytes } = await writeOnnxExport(to, dir, trained, { signal, onProgress: progressOf(output) })
    output.data({ event: 'done', out: to, bytes })
    output.text(`${model} in ${to}`)
  })
}

/** Steps of the shown progress, as a share. */
const SHOWN = 0.1

function progressOf(output: Output): (share: number) => void {
  let next = SHOWN
  return (share) => {
    if (share < next) return
    output.note(`${Math.round(100 * share)} % written`)
    next = Math.floor(share / SHOWN) * SHOWN + SHOWN
  }
}

async function recordsOf({ tap, output, signal }: Job) {
  const { readLog } = await import('../tap/records.ts')
  const onProblem = (seq: number, problem: string) => output.note(`record ${seq} is left out: ${problem}`)
  return readLog(tap, { to: Infinity, signal, onProblem })
}

async function writeVersion({ tap, folder, config, options, output, signal }: Job, format: 'peft' | 'merged' | 'onnx') {
  const { exportCheckpoint } = await import('../export/checkpoint.ts')
  const place = (version: number): string => {
    const dir = resolve(options.out ?? join(folder, 'checkpoints', `${format}-v${version}`))
    refuseForeign(dir, [])
    return dir
  }
  const version = options.weights ?? null
  const onProgress = progressOf(output)
  const done = await exportCheckpoint(tap, { config, format, version, out: place, signal, onProgress })
  output.data({ event: 'done', out: done.dir, version: done.version })
  output.text(`version ${done.version} in ${done.dir}`)
}

/** What an earlier export has made is replaced; anything else is somebody's. */
function refuseForeign(dir: string, own: readonly string[]): void {
  const foreign = existsSync(dir) ? readdirSync(dir).find((name) => !own.includes(name)) : undefined
  if (foreign !== undefined) throw new UsageError(`${dir} holds ${foreign}: choose a folder that does not exist`)
}
