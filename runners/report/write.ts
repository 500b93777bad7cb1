/** Writes `report.html` into the folder of a run: one file, no network, readable for years. */
import { randomUUID } from 'node:crypto'
import { rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ReportData } from './data.ts'
import { renderPage } from './html.ts'
import { readReportData } from './read.ts'

/** Returns the path of the report. `data` defaults to what the folder holds. A reader never sees half a page. */
export async function writeReport(runDir: string, data?: ReportData): Promise<string> {
  const page = await renderPage(data ?? (await readReportData(runDir)))
  const file = join(runDir, 'report.html')
  const temporary = `${file}.${randomUUID()}`
  try {
    await writeFile(temporary, page)
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  return file
}
