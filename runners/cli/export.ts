/** `visplay export`: a run for other tools. */
import type { Command } from 'commander'
import { createWriteStream, existsSync, type WriteStream } from 'node:fs'
import { readdir, rename, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { once } from 'node:events'
import type { Tap } from '../../bus/nats/tap.ts'
import { TABLES, type Row, type TableName } from '../export/tables.ts'
import type { AnyRecord } from '../tap/records.ts'
import { UsageError } from './fail.ts'
import { interruptible } from './interrupt.ts'
import { newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput } from './output.ts'
import type { Output } from './output.ts'
import { chosenRun } from './run-folder.ts'

interface Options extends CommonOptions {
  readonly ndjson?: true
  readonly parquet?: true
  readonly out?: string
}

export function command(): Command {
  const about = [
    'Hands the log of a run to other tools. --ndjson: every record as a line of JSON. --parquet: a folder of tables,',
    'records, completions, metrics and evals, for pandas or DuckDB.',
  ].join('\n')
  return newCommand('export', about, [
    ['my-run --ndjson > run.ndjson', 'every record, one JSON object per line'],
    ['my-run --ndjson --out run.ndjson', 'the same as a file that appears complete or not at all'],
    ['my-run --parquet --out tables', 'duckdb -c "from \'tables/completions.parquet\'"'],
  ])
    .argument('[run]', 'name or folder of a run; the newest in runs/ if left out')
    .option('--ndjson', 'records as JSON lines, on stdout unless --out says otherwise')
    .option('--parquet', 'tables as Parquet files, in parquet/ of the run unless --out says otherwise')
    .option('--out <path>', 'file (--ndjson) or folder (--parquet)')
    .action(run)
}

async function run(name: string | undefined, options: Options): Promise<void> {
  const output = createOutput(options.json === true)
  if ((options.ndjson === true) === (options.parquet === true)) {
    throw new UsageError('choose one of --ndjson and --parquet')
  }
  const folder = chosenRun(name)
  const { openTap } = await import('../tap/open.ts')
  const { tap, close } = await openTap(undefined, folder)
  try {
    await interruptible((signal) =>
      options.ndjson === true
        ? writeNdjson(tap, options.out, output, signal)
        : writeParquet(tap, folder, options.out, output, signal),
    )
  } finally {
    await close()
  }
}

async function records(tap: Tap, output: Output, signal: AbortSignal): Promise<AsyncGenerator<AnyRecord>> {
  const { readLog } = await import('../tap/records.ts')
  const onProblem = (seq: number, problem: string) => output.note(`record ${seq} is left out: ${problem}`)
  return readLog(tap, { to: Infinity, signal, onProblem })
}

async function writeNdjson(tap: Tap, out: string | undefined, output: Output, signal: AbortSignal): Promise<void> {
  const file = out === undefined || out === '-' ? null : resolve(out)
  const stream: NodeJS.WritableStream | WriteStream =
    file === null ? process.stdout : createWriteStream(`${file}.partial`)
  let count = 0
  try {
    for await (const { seq, event, id, message } of await records(tap, output, signal)) {
      const { at, by, traceparent, data } = message
      count++
      if (!stream.write(`${JSON.stringify({ seq, event, id, at, by, traceparent, data })}\n`))
        await once(stream, 'drain')
    }
    if (file === null) return
    stream.end()
    await once(stream, 'finish')
    await rename(`${file}.partial`, file)
  } catch (error) {
    if (file !== null) await rm(`${file}.partial`, { force: true })
    throw error
  }
  output.data({ event: 'done', out: file, records: count })
  output.text(`${count} records in ${file}`)
}

async function writeParquet(
  tap: Tap,
  folder: string,
  out: string | undefined,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const dir = resolve(out ?? join(folder, 'parquet'))
  await refuseForeign(dir)
  const [{ ParquetFolder }, { Tables }, { readConfig }] = await Promise.all([
    import('../export/parquet.ts'),
    import('../export/tables.ts'),
    import('../../configs/load.ts'),
  ])
  const tables = await ParquetFolder.make(dir)
  try {
    const rows: [TableName, Row][] = []
    const images = readConfig(join(folder, 'config.yaml')).groups.images
    const from = new Tables(images, (table, row) => rows.push([table, row]))
    const drain = async () => {
      for (const [table, row] of rows.splice(0)) await tables.add(table, row)
    }
    for await (const record of await records(tap, output, signal)) {
      from.take(record)
      await drain()
    }
    from.end()
    await drain()
    await tables.end()
  } catch (error) {
    await tables.abandon()
    throw error
  }
  output.data({ event: 'done', out: dir, rows: tables.counts })
  for (const [table, count] of Object.entries(tables.counts))
    output.text(`${count} rows in ${join(dir, table)}.parquet`)
}

/** An earlier export is replaced; anything else is somebody's. */
async function refuseForeign(dir: string): Promise<void> {
  if (!existsSync(dir)) return
  const foreign = (await readdir(dir)).find((name) => !Object.keys(TABLES).some((table) => name === `${table}.parquet`))
  if (foreign !== undefined) throw new UsageError(`${dir} holds ${foreign}: choose a folder that does not exist`)
}
