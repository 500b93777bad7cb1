/** Tables as Parquet files, written row group by row group, so that a run of any length needs little memory. */
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileWriter, ParquetWriter, schemaFromColumnData } from 'hyparquet-writer'
import type { AnyRecord } from '../tap/records.ts'
import { TABLES, Tables, type Row, type TableName } from './tables.ts'

const ROW_GROUP = 50_000

class TableFile {
  readonly #writer: ParquetWriter
  readonly #types: readonly (readonly [string, string])[]
  #rows: Row[] = []

  constructor(file: string, table: TableName) {
    this.#types = Object.entries(TABLES[table])
    this.#writer = new ParquetWriter({
      writer: fileWriter(file),
      schema: schemaFromColumnData({ columnData: this.#columns([]) }),
      createdBy: 'visplay',
    })
  }

  async add(row: Row): Promise<void> {
    this.#rows.push(row)
    if (this.#rows.length >= ROW_GROUP) await this.#flush()
  }

  async end(): Promise<void> {
    if (this.#rows.length > 0) await this.#flush()
    await this.#writer.finish()
  }

  async #flush(): Promise<void> {
    const rows = this.#rows
    this.#rows = []
    await this.#writer.write({ columnData: this.#columns(rows), rowGroupSize: ROW_GROUP })
  }

  #columns(rows: readonly Row[]) {
    return this.#types.map(([name, type]) => ({
      name,
      type: type as 'STRING',
      nullable: true,
      data: rows.map((row) => row[name] ?? null),
    }))
  }
}

/** A folder of Parquet files that appears complete or not at all. */
class ParquetFolder {
  readonly counts: Record<TableName, number> = { records: 0, completions: 0, metrics: 0, evals: 0 }
  readonly #files: Readonly<Record<TableName, TableFile>>

  private constructor(
    private readonly dir: string,
    private readonly partial: string,
  ) {
    const file = (table: TableName) => new TableFile(join(partial, `${table}.parquet`), table)
    this.#files = {
      records: file('records'),
      completions: file('completions'),
      metrics: file('metrics'),
      evals: file('evals'),
    }
  }

  static async make(dir: string): Promise<ParquetFolder> {
    const partial = `${dir}.partial`
    await rm(partial, { recursive: true, force: true })
    await mkdir(partial, { recursive: true })
    return new ParquetFolder(dir, partial)
  }

  async add(table: TableName, row: Row): Promise<void> {
    this.counts[table]++
    await this.#files[table].add(row)
  }

  /** Replaces an earlier folder of the same name. */
  async end(): Promise<void> {
    for (const file of Object.values(this.#files)) await file.end()
    await rm(this.dir, { recursive: true, force: true })
    await rename(this.partial, this.dir)
  }

  /** Leaves nothing behind. */
  async abandon(): Promise<void> {
    await rm(this.partial, { recursive: true, force: true })
  }
}

/** Writes the tables of a run into `dir`; returns the rows of each. `images` of a step, assumed until the log says it. */
export async function writeParquet(
  records: AsyncIterable<AnyRecord>,
  images: number,
  dir: string,
): Promise<Readonly<Record<TableName, number>>> {
  const folder = await ParquetFolder.make(dir)
  try {
    const rows: [TableName, Row][] = []
    const tables = new Tables(images, (table, row) => rows.push([table, row]))
    const drain = async () => {
      for (const [table, row] of rows.splice(0)) await folder.add(table, row)
    }
    for await (const record of records) {
      tables.take(record)
      await drain()
    }
    tables.end()
    await drain()
    await folder.end()
  } catch (error) {
    await folder.abandon()
    throw error
  }
  return folder.counts
}
