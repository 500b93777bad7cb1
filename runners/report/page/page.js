/* Draws the curves and the gallery from the JSON in the page. Text of models is only ever set as text. */
;(() => {
  const data = JSON.parse(document.getElementById('data').textContent)
  const CARDS_AT_ONCE = 30

  const element = (tag, className, text) => {
    const node = document.createElement(tag)
    if (className) node.className = className
    if (text !== undefined) node.textContent = text
    return node
  }

  // ---- curves ----
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
  const number = (x) =>
    x !== 0 && Math.abs(x) < 0.001
      ? x.toExponential(1)
      : Math.abs(x) >= 10000
        ? `${Math.round(x / 1000)}k`
        : String(+x.toPrecision(4))
  const formats = {
    percent: (x) => (x === null || x === undefined ? '–' : `${(100 * x).toFixed(1)} %`),
    number: (x) => (x === null || x === undefined ? '–' : number(x)),
  }
  const axisFormats = { percent: (x) => `${+(100 * x).toFixed(1)} %`, number }

  /** Dashed lines where an alarm was raised. */
  const alarmLines = {
    hooks: {
      draw: (u) => {
        const { ctx, bbox } = u
        ctx.save()
        ctx.strokeStyle = color('bad')
        ctx.setLineDash([4, 4])
        for (const { step } of data.alarms) {
          const x = Math.round(u.valToPos(step, 'x', true))
          if (x < bbox.left || x > bbox.left + bbox.width) continue
          ctx.beginPath()
          ctx.moveTo(x, bbox.top)
          ctx.lineTo(x, bbox.top + bbox.height)
          ctx.stroke()
        }
        ctx.restore()
      },
    },
  }

  /** Below a chart: the values under the cursor, else the last ones. */
  const legend = (chart, box) => {
    const line = box.querySelector('.legend')
    line.replaceChildren()
    const at = element('span', 'at')
    const values = chart.series.map((s) => {
      const entry = element('span', 'entry')
      const mark = element('i')
      mark.style.background = `var(--${s.color})`
      const value = element('b')
      entry.append(mark, `${s.label} `, value)
      line.append(entry)
      return value
    })
    line.append(at)
    return (index) => {
      const i = index ?? chart.x.length - 1
      at.textContent = `step ${chart.x[i]}`
      for (const [k, s] of chart.series.entries()) values[k].textContent = formats[chart.format](s.y[i])
    }
  }

  /** Around the values, never narrower than what is worth seeing: noise of a flat curve should look flat. */
  const yRange = (chart) => (_, low, high) => {
    if (low === null) return [0, 1]
    const least =
      chart.format === 'percent' ? 0.08 : Math.max(0.02 * Math.abs(high), low === 0 && high === 0 ? 1 : 1e-9)
    const span = Math.max(1.2 * (high - low), least)
    const middle = (low + high) / 2
    const bottom = low >= 0 ? Math.max(0, middle - span / 2) : middle - span / 2
    return [bottom, bottom + span]
  }

  const plots = []
  const draw = (chart, box) => {
    const holder = box.querySelector('.plot')
    holder.replaceChildren()
    const axis = (extra) => ({
      stroke: color('soft'),
      grid: { stroke: color('line'), width: 1 },
      ticks: { show: false },
      font: '11px system-ui, sans-serif',
      ...extra,
    })
    const update = legend(chart, box)
    const few = chart.x.length <= 40
    const options = {
      width: holder.clientWidth,
      height: 190,
      cursor: { sync: { key: 'steps', setSeries: false }, y: false, drag: { x: true, y: false } },
      scales: { x: { time: false }, y: { range: yRange(chart) } },
      axes: [
        axis({ size: 26, gap: 4, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] }),
        axis({ size: 52, gap: 4, values: (_, ticks) => ticks.map(axisFormats[chart.format]) }),
      ],
      series: [
        {},
        ...chart.series.map((s) => ({
          label: s.label,
          stroke: color(s.color),
          width: 1.75,
          spanGaps: true,
          points: { show: few, size: 5, fill: color('card') },
        })),
      ],
      legend: { show: false },
      hooks: { setCursor: [(u) => update(u.cursor.idx)] },
      plugins: [alarmLines],
    }
    update(null)
    return new uPlot(options, [chart.x, ...chart.series.map((s) => s.y)], holder)
  }
  const addCharts = (charts, parent) => {
    for (const chart of charts) {
      const box = element('div', 'chart')
      box.append(
        element('h3', '', chart.title),
        element('p', 'about', chart.about),
        element('div', 'plot'),
        element('div', 'legend'),
      )
      parent.append(box)
      plots.push({ chart, box, plot: draw(chart, box) })
    }
  }
  const redraw = () => {
    for (const entry of plots) {
      entry.plot.destroy()
      entry.plot = draw(entry.chart, entry.box)
    }
  }
  const resize = () => {
    for (const { plot, box } of plots) plot.setSize({ width: box.querySelector('.plot').clientWidth, height: 190 })
  }

  const curves = document.getElementById('charts')
  if (data.charts.length === 0) curves.append(element('p', 'about', 'No step is finished yet.'))
  addCharts(data.charts, curves)
  const others = document.getElementById('others')
  others.hidden = data.others.length === 0
  others.querySelector('summary').textContent = `All other metrics (${data.others.length})`
  others.addEventListener('toggle', () => addCharts(data.others, document.getElementById('other-charts')), {
    once: true,
  })
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw)
  let frame = 0
  addEventListener('resize', () => {
    cancelAnimationFrame(frame)
    frame = requestAnimationFrame(resize)
  })

  // ---- gallery ----
  const kinds = {
    all: { label: 'all', test: () => true },
    kept: { label: 'trained', test: (q) => q.reasoner !== null && q.reasoner.keep },
    agree: { label: 'silver = majority', test: (q) => q.reasoner !== null && silverIsMajority(q) },
    disagree: { label: 'silver ≠ majority', test: (q) => q.reasoner !== null && !silverIsMajority(q) },
    malformed: { label: 'malformed', test: (q) => q.malformed !== null },
  }
  /** Answers are written in many ways; that one equals the silver answer shows in the share that agrees. */
  const silverIsMajority = ({ reasoner }) =>
    reasoner.agreement > 0 && Math.abs(reasoner.agreement - reasoner.share) < 1e-9
  const signed = (x) => `${x < 0 ? '−' : '+'}${Math.abs(x).toFixed(2)}`
  const whole = (x) => `${Math.round(100 * x)} %`

  const picture = (q) => {
    if (q.picture === null) return element('div', 'lost', 'picture lost')
    const image = element('img')
    image.src = data.pictures[q.picture]
    image.alt = q.name
    image.title = q.name
    image.loading = 'lazy'
    image.addEventListener('load', () => image.classList.toggle('tiny', image.naturalWidth <= 96))
    return image
  }

  const answers = (q) => {
    const list = element('ul', 'answers')
    const total = q.answers.reduce((sum, a) => sum + a.count, 0)
    const best = Math.max(...q.answers.map((a) => a.reward))
    for (const { text, count, reward } of q.answers) {
      const line = element('li', reward === best && reward > 0 ? 'match' : '')
      line.style.setProperty('--share', `${(100 * count) / total}%`)
      line.append(
        element('div', '', text === null ? '(no answer)' : text),
        element('span', '', `×${count}  ${signed(reward)}`),
      )
      list.append(line)
    }
    return list
  }

  const verdict = (q) => {
    const box = element('div', 'verdict')
    const parts = Object.entries(q.questioner.parts).map(([name, value]) => `${name} ${+value.toFixed(2)}`)
    const first = element('div')
    first.append(
      'Questioner ',
      element('b', '', signed(q.questioner.reward)),
      parts.length ? ` (${parts.join(', ')})` : '',
    )
    box.append(first)
    const second = element('div')
    if (q.malformed !== null) second.append(element('b', 'dropped', 'malformed'), `: ${q.malformed}`)
    else if (q.reasoner !== null) {
      const { keep, dropped, agreement, majority, share } = q.reasoner
      second.append(element('b', keep ? 'kept' : 'dropped', keep ? 'trained' : 'not trained'))
      if (dropped !== null) second.append(`: ${dropped}`)
      box.append(
        element(
          'div',
          '',
          `majority ${majority === null ? '–' : `“${majority}”`} ${whole(share)} · silver ${whole(agreement)}`,
        ),
      )
    }
    box.append(second, element('div', '', `step ${q.step} · version ${q.weights}${q.type ? ` · ${q.type}` : ''}`))
    return box
  }

  const card = (q) => {
    const box = element('article', 'card')
    const body = element('div', 'body')
    body.append(element('div', 'question', q.question === '' ? '(empty)' : q.question))
    if (q.malformed === null) {
      const silver = element('div', 'silver', 'silver ')
      silver.append(element('b', '', q.silver))
      body.append(silver, answers(q))
    }
    body.append(verdict(q))
    box.append(picture(q), body)
    return box
  }

  const state = { kind: 'all', step: '', text: '', shown: CARDS_AT_ONCE }
  const cards = document.getElementById('cards')
  const filters = document.getElementById('filters')
  const matching = () =>
    data.gallery.filter(
      (q) =>
        kinds[state.kind].test(q) &&
        (state.step === '' || q.step === Number(state.step)) &&
        (state.text === '' ||
          `${q.question} ${q.silver} ${q.type} ${q.answers.map((a) => a.text).join(' ')}`
            .toLowerCase()
            .includes(state.text)),
    )
  const show = () => {
    const found = matching()
    cards.replaceChildren(...found.slice(0, state.shown).map(card))
    if (found.length === 0) cards.append(element('p', 'empty', 'Nothing matches.'))
    if (found.length > state.shown) {
      const more = element('button', 'more', `${found.length - state.shown} more`)
      more.addEventListener('click', () => {
        state.shown += CARDS_AT_ONCE
        show()
      })
      cards.append(more)
    }
    for (const button of filters.querySelectorAll('button')) {
      button.setAttribute('aria-pressed', String(button.dataset.kind === state.kind))
    }
  }
  const change = (part) => {
    Object.assign(state, part, { shown: CARDS_AT_ONCE })
    show()
  }

  if (data.gallery.length === 0) {
    cards.append(element('p', 'empty', 'No question has a verdict yet.'))
    return
  }
  for (const [kind, { label, test }] of Object.entries(kinds)) {
    const count = data.gallery.filter(test).length
    if (count === 0) continue
    const button = element('button', '', label)
    button.type = 'button'
    button.dataset.kind = kind
    button.append(element('span', '', String(count)))
    button.addEventListener('click', () => change({ kind }))
    filters.append(button)
  }
  const steps = element('select')
  steps.setAttribute('aria-label', 'step')
  steps.append(new Option('every step', ''))
  for (const step of [...new Set(data.gallery.map((q) => q.step))])
    steps.append(new Option(`step ${step}`, String(step)))
  steps.addEventListener('change', () => change({ step: steps.value }))
  const search = element('input')
  search.type = 'search'
  search.placeholder = 'search'
  search.setAttribute('aria-label', 'search')
  search.addEventListener('input', () => change({ text: search.value.trim().toLowerCase() }))
  filters.append(steps, search)
  show()
})()
