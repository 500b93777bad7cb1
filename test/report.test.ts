import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import vm from 'node:vm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { mainCharts, otherCharts } from '../runners/report/charts.ts'
import { pickGallery } from '../runners/report/pick.ts'
import { readReportData } from '../runners/report/read.ts'
import { writeReport } from '../runners/report/write.ts'
import { writeRunFolder } from './support/run-folder.ts'

const EVIL = `</script><script>alert(1)</script><img src=x onerror="alert(2)">'&`
let root: string
const folder = async (name: string, options = {}): Promise<string> => {
  const dir = join(root, name)
  await writeRunFolder(dir, options)
  return dir
}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'visplay-report-'))
})
afterAll(() => rm(root, { recursive: true, force: true }))

describe('the page', () => {
  test('is one file that needs nothing from outside, and no half-written one is left', async () => {
    const dir = await folder('plain')
    const page = await readFile(await writeReport(dir), 'utf8')
    expect(page).not.toMatch(/(src|href)\s*=\s*["']?(https?:)?\/\//i)
    expect(page).not.toMatch(/@import|url\(/)
    expect(page).toContain("default-src 'none'")
    expect((await readdir(dir)).sort()).toEqual([
      'config.yaml',
      'gallery',
      'gallery.jsonl',
      'metrics.jsonl',
      'report.html',
    ])
  })

  test('shows before and after of each set, and the gain', async () => {
    const page = await readFile(await writeReport(await folder('gains')), 'utf8')
    expect(page).toContain('<span>58.0 %</span><i>→</i><b>66.1 %</b>')
    expect(page).toMatch(
      /<th scope="row">clean<\/th><td>1900<\/td><td>84\.0 % → <b>83\.6 %<\/b> <em class="down">−0\.4/,
    )
    expect(page).toContain('No alarms, nothing given up.')
  })

  test('escapes what models and users wrote, everywhere', async () => {
    const page = await readFile(await writeReport(await folder('evil', { text: EVIL, alarms: true })), 'utf8')
    expect(page).not.toContain(EVIL)
    expect(page).not.toContain('<img src=x')
    expect(page.match(/<script/g)).toHaveLength(3)
    expect(page).toContain('agreement 0.96 is over 0.95 &lt;/script&gt;')
    const json = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(page)![1]!
    expect(JSON.stringify(JSON.parse(json))).toContain(JSON.stringify(EVIL).slice(1, -1))
  })

  test('its scripts are valid', async () => {
    const page = await readFile(await writeReport(await folder('scripts')), 'utf8')
    const scripts = [...page.matchAll(/<script>(.*?)<\/script>/gs)].map((m) => m[1]!)
    expect(scripts).toHaveLength(2)
    for (const script of scripts) expect(() => new vm.Script(script)).not.toThrow()
  })
})

describe('reading a run', () => {
  test('half a line, a fact written twice and a lost picture do no harm, and are counted', async () => {
    const dir = await folder('crashed')
    const whole = await readReportData(dir)
    const metrics = await readFile(join(dir, 'metrics.jsonl'), 'utf8')
    await appendFile(join(dir, 'metrics.jsonl'), `${metrics.split('\n')[2]}\n{"event":"step","st`)
    await rm(join(dir, 'gallery', '000001.png'))
    const data = await readReportData(dir)
    expect(data.steps).toHaveLength(60)
    expect(data.unreadable).toBe(2)
    expect(data.gallery).toHaveLength(whole.gallery.length)
    expect(data.gallery.filter((q) => q.picture === null)).not.toHaveLength(0)
  })

  test('a run that has only just begun has a report', async () => {
    const dir = await folder('young')
    await Promise.all(['metrics.jsonl', 'gallery.jsonl'].map((name) => rm(join(dir, name))))
    const page = await readFile(await writeReport(dir), 'utf8')
    expect(page).toContain('There was no held-out set.')
  })

  test('pictures outside the folder are not read', async () => {
    const dir = await folder('foreign')
    const [line] = (await readFile(join(dir, 'gallery.jsonl'), 'utf8')).split('\n')
    const foreign = { ...(JSON.parse(line!) as object), picture: '../plain/gallery/000000.png' }
    await writeFile(join(dir, 'gallery.jsonl'), JSON.stringify(foreign))
    expect((await readReportData(dir)).pictures).toEqual({})
  })

  test('a folder that is no run is named', async () => {
    await expect(readReportData(join(root, 'nothing'))).rejects.toThrow(/nothing\/config.yaml does not exist/)
  })
})

test('curves: accuracy first, of comparable measurements, the rest of the metrics apart', async () => {
  const data = await readReportData(await folder('curves'))
  const [heldOut, clean, rewards] = mainCharts(data)
  expect([heldOut!.title, clean!.title, rewards!.title]).toEqual(['Accuracy: held-out', 'Accuracy: clean', 'Rewards'])
  expect(heldOut!.x).toEqual([0, 10, 20, 30, 40, 50, 60])
  expect(heldOut!.series[0]!.y.at(-1)).toBeCloseTo(0.661, 2)
  expect(rewards!.x).toEqual(Array.from({ length: 60 }, (_, i) => i + 1))
  expect(otherCharts(data).map((c) => c.title)).toEqual([
    'questioner/frac_reward_zero_std',
    'reasoner/frac_reward_zero_std',
  ])
})

test('a long run is shown as a spread over all of it', async () => {
  const { gallery } = await readReportData(await folder('spread'))
  const picked = pickGallery(
    gallery.map((q) => ({ ...q, picture: '' })),
    24,
  )
  expect(picked).toHaveLength(24)
  expect([...new Set(picked.map((q) => q.step))]).toEqual(Array.from({ length: 12 }, (_, i) => 1 + 5 * i))
})
