/** The page: what is read without scripts is written here, curves and gallery are drawn by page/page.js from JSON. */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { mainCharts, otherCharts } from './charts.ts'
import type { BeforeAfter, ReportData } from './data.ts'

/** The whole page. Text of models and users is escaped, or reaches the page as JSON and is set as text only. */
export async function renderPage(data: ReportData): Promise<string> {
  const { resolve } = createRequire(import.meta.url)
  const [chartCss, chartJs, css, js] = await Promise.all(
    [
      resolve('uplot/dist/uPlot.min.css'),
      resolve('uplot/dist/uPlot.iife.min.js'),
      new URL('page/page.css', import.meta.url),
      new URL('page/page.js', import.meta.url),
    ].map((file) => readFile(file, 'utf8')),
  )
  const { gallery, pictures } = data
  const forScript = {
    charts: mainCharts(data),
    others: otherCharts(data),
    alarms: data.alarms.map(({ step, name }) => ({ step, name })),
    gallery,
    pictures,
  }
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${escape(data.run)} · visplay</title>
<style>${chartCss}\n${css}</style>
</head>
<body>
<main>
${header(data)}
${alarms(data)}
${accuracy(data)}
${byType(data)}
<section id="curves"><h2>Curves</h2><div class="charts" id="charts"></div>
<details id="others"><summary>All other metrics</summary><div class="charts" id="other-charts"></div></details></section>
<section id="gallery"><h2>What the two roles said</h2><div id="filters"></div><div id="cards"></div></section>
<section><h2>Configuration</h2><details><summary>config.yaml</summary><pre>${escape(data.config)}</pre></details></section>
${footer(data)}
</main>
<script type="application/json" id="data">${scriptJson(forScript)}</script>
<script>${chartJs}</script>
<script>${js}</script>
</body>
</html>
`
}

/** Text inside an element or a quoted attribute. */
export function escape(text: string): string {
  const entities: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  }
  return text.replaceAll(/[&<>"']/g, (char) => entities[char]!)
}

/** JSON that cannot end its script element, whatever a model wrote. */
function scriptJson(value: unknown): string {
  return JSON.stringify(value)
    .replaceAll('<', '\\u003c')
    .replaceAll('\u2028', '\\u2028')
    .replaceAll('\u2029', '\\u2029')
}

function header({ run, facts }: ReportData): string {
  const items = Object.entries(facts).map(
    ([name, value]) => `<div><dt>${escape(name)}</dt><dd>${escape(value)}</dd></div>`,
  )
  return `<header><p class="brand">visplay</p><h1>${escape(run)}</h1><dl class="facts">${items.join('')}</dl></header>`
}

function alarms({ alarms, dead }: ReportData): string {
  const rows = [
    ...alarms.map((a) => [`step ${a.step}`, a.name, a.message] as const),
    ...dead.map((d) => ['given up', d.kind, `${d.id} after ${d.deliveries} deliveries: ${d.cause}`] as const),
  ].map(([when, what, why]) => `<li><b>${escape(what)}</b> <span>${escape(when)}</span> ${escape(why)}</li>`)
  if (rows.length === 0) return '<p class="calm">No alarms, nothing given up.</p>'
  const title = alarms.length === 0 ? '' : `${alarms.length} ${alarms.length === 1 ? 'alarm' : 'alarms'}`
  return `<section class="alarms"><h2>${title === '' ? 'Given up' : title}</h2><ul>${rows.join('')}</ul></section>`
}

const KEYS = ['mean1', 'greedy', 'maj'] as const
const LABELS = { mean1: 'mean@1', greedy: 'greedy', maj: 'majority' } as const
const MEANINGS = {
  mean1: 'a sample at temperature 1 is right',
  greedy: 'the greedy answer is right',
  maj: 'the most frequent of the samples is right',
} as const

function accuracy({ beforeAfter, evals }: ReportData): string {
  if (beforeAfter.length === 0) {
    const why = evals.length === 0 ? 'There was no held-out set.' : 'The held-out set was measured only once so far.'
    return `<section><h2>Held-out accuracy</h2><p class="about">${why}</p></section>`
  }
  const [first] = beforeAfter
  const tiles = KEYS.map(
    (key) => `<div class="tile"><h3>${LABELS[key]}</h3><p class="about">${MEANINGS[key]}</p>
<p class="figures"><span>${percent(first!.before[key])}</span><i>→</i><b>${percent(first!.after[key])}</b>
${gain(first!.after[key] - first!.before[key])}</p></div>`,
  )
  return `<section><h2>Held-out accuracy, before and after</h2><div class="tiles">${tiles.join('')}</div>
${beforeAfter.length > 1 ? accuracyTable(beforeAfter) : ''}</section>`
}

function accuracyTable(rows: readonly BeforeAfter[]): string {
  const body = rows.map(({ set, before, after }) => {
    const cells = KEYS.map(
      (key) => `<td>${percent(before[key])} → <b>${percent(after[key])}</b> ${gain(after[key] - before[key])}</td>`,
    )
    return `<tr><th scope="row">${escape(set)}</th><td>${after.n}</td>${cells.join('')}</tr>`
  })
  const heads = KEYS.map((key) => `<th scope="col">${LABELS[key]}</th>`).join('')
  return `<div class="scroll"><table><thead><tr><th scope="col">set</th><th scope="col">questions</th>${heads}</tr></thead>
<tbody>${body.join('')}</tbody></table></div>`
}

/** A line per type of question from before (hollow) to after (full), greedy accuracy. */
function byType({ beforeAfter }: ReportData): string {
  const [first] = beforeAfter
  const types = Object.keys(first?.after.byType ?? {}).filter((type) => first!.before.byType[type] !== undefined)
  if (first === undefined || types.length < 2) return ''
  const rows = types.map((type) => {
    const [from, to] = [first.before.byType[type]!.greedy, first.after.byType[type]!.greedy]
    const [left, width] = [Math.min(from, to), Math.abs(to - from)].map((x) => (100 * x).toFixed(2))
    return `<div class="type"><span>${escape(type)}</span><div class="track ${to < from ? 'worse' : ''}">
<i class="link" style="left:${left}%;width:${width}%"></i><i class="from" style="left:${(100 * from).toFixed(2)}%"></i>
<i class="to" style="left:${(100 * to).toFixed(2)}%"></i></div><span class="value">${percent(to)} ${gain(to - from)}</span></div>`
  })
  return `<section><h2>By type of question</h2><p class="about">Greedy accuracy on ${escape(first.set)}, from before (ring) to after (dot).</p>
<div class="types">${rows.join('')}</div></section>`
}

const percent = (x: number): string => `${(100 * x).toFixed(1)} %`

function gain(x: number): string {
  const points = 100 * x
  const kind = Math.abs(points) < 0.05 ? 'same' : points > 0 ? 'up' : 'down'
  return `<em class="${kind}">${points < -0.05 ? '−' : '+'}${Math.abs(points).toFixed(1)}</em>`
}

function footer({ run, unreadable, steps, gallery }: ReportData): string {
  const lost = unreadable === 0 ? '' : ` ${unreadable} lines or pictures could not be read.`
  return `<footer>${steps.length} steps, ${gallery.length} questions shown.${lost} Made from the files of the run;
<code>npx visplay report ${escape(run)}</code> makes it again.</footer>`
}
