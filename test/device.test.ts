/** Computing on other devices than the CPU. What needs one is skipped where there is none (README, "GPU"). */
import * as ort from 'onnxruntime-node'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { DeviceCache } from '../models/generate/device-cache.ts'
import { generate, type GenerationModel, type ImageRequests } from '../models/generate/generate.ts'
import { Graph } from '../models/graph/graph.ts'
import { caseGraph, opCases } from '../models/graph/op-cases.ts'
import { toOnnx } from '../models/graph/onnx.ts'
import * as op from '../models/graph/ops.ts'
import { webgpuEmitters } from '../models/graph/webgpu-emitters.ts'
import { placementOf } from '../models/runtime/placement.ts'
import { Profile } from '../models/runtime/profile.ts'
import { Session } from '../models/runtime/session.ts'
import { f32 } from '../models/tensor.ts'
import { extendGraph } from '../models/vlm/graphs.ts'
import { samplerGraph } from '../models/vlm/sampler.ts'
import { checkDevice } from '../runners/device/check-device.ts'
import { deviceChecks } from '../runners/device/checks.ts'
import type { DeviceResult } from '../runners/device/finding.ts'
import { goldenImage, goldens } from './support/goldens.ts'
import { program } from './support/program.ts'
import { openTiny } from './support/tiny-variant.ts'

async function collect(results: AsyncGenerator<DeviceResult>): Promise<DeviceResult[]> {
  const all: DeviceResult[] = []
  for await (const result of results) all.push(result)
  return all
}

const [found] = await collect(checkDevice('webgpu', []))
const webgpu = found!.status === 'ok'

describe('what is written for WebGPU', () => {
  it.each(Object.entries(opCases))('%s means the same', async (_name, cases) => {
    for (const c of cases) {
      const { graph, outputs, feeds } = caseGraph(c)
      const session = await Session.create(graph, outputs, { threads: 1 })
      const expected = await session.run(feeds)
      await session.release()
      const model = toOnnx(graph, outputs, { emitters: webgpuEmitters })
      const other = await ort.InferenceSession.create(model.bytes, { externalData: [...model.external] })
      const wrapped = model.inputs.map((name) => {
        const { dtype, data, dims } = feeds[name]!
        return [name, new ort.Tensor(dtype, data, dims)] as const
      })
      const actual = await other.run(Object.fromEntries(wrapped))
      await other.release()
      for (const [name, { dims, data }] of Object.entries(expected)) {
        expect(actual[name]!.dims, name).toEqual(dims)
        data.forEach((x, i) => expect(Number((actual[name]!.data as Float32Array)[i])).toBeCloseTo(Number(x), 4))
      }
    }
  })

  it('appends to the key-value cache in the graph, with the same samples', async () => {
    const tiny = await openTiny()
    const { context, weights } = tiny.network
    const own = tiny.network.generation()
    const [extend, sample] = await Promise.all(
      [extendGraph(context, 'append', 'fp32'), samplerGraph(context, 'one', 'fp32')].map(({ graph, outputs }) =>
        Session.create(graph, outputs, { threads: 1 }),
      ),
    )
    const appending: GenerationModel = {
      ...own,
      cache: (images) => new DeviceCache({ ...context.architecture.text, images }),
      extend: async (cache, feeds) => {
        const { hidden, ...keys } = await extend!.run({ ...weights, ...feeds, ...cache.feeds() })
        cache.append(keys, feeds['ids']!.dims[1]!)
        const { sampled, logprobs } = await sample!.run({ ...weights, ...feeds, hidden: hidden! })
        return { sampled: sampled!, logprobs: logprobs! }
      },
    }
    const prompts = (...tokens: number[]): ImageRequests['prompts'] =>
      tokens.map((t) => ({
        ...{ key: String(t), tokens: [t, t + 1], samples: 4, maxNewTokens: 6, temperature: 1, seed: 3 },
      }))
    const images: ImageRequests[] = [
      { ...tiny.root(0), prompts: prompts(10, 20) },
      { ...tiny.root(null), prompts: prompts(30) },
    ]
    const [beside, appended] = [
      await generate(own, images, tiny.features),
      await generate(appending, images, tiny.features),
    ].map((result) => result.flat(2))
    expect(appended!.map((s) => s.tokens)).toEqual(beside!.map((s) => s.tokens))
    const errors = appended!.flatMap((s, i) => s.logprobs.map((x, t) => Math.abs(x - beside![i]!.logprobs[t]!)))
    expect(Math.max(...errors)).toBeLessThan(1e-5)
    await Promise.all([extend!.release(), sample!.release(), tiny.dispose()])
  })
})

it('tells nodes that compute sizes from tensors that fall back', async () => {
  const graph = new Graph()
  const x = graph.input('x', 'float32', ['A', 'B'])
  const y = op.mul(op.reshape(op.broadcastTo(op.scalar(graph, 2), ['A', 'B']), ['A*B']), op.reshape(x, ['A*B']))
  const profile = new Profile()
  const session = await Session.create(graph, { y }, { threads: 1, profile, name: 'sizes' })
  await session.run({ x: f32([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [3, 4]) })
  await session.release()
  expect(new Set(profile.nodes.map((n) => n.graph))).toEqual(new Set(['sizes']))
  expect(placementOf(profile.nodes, 'cpu')).toMatchObject({ sizes: {}, fallbacks: {}, copies: {} })
  // As if another device had left all of it to the CPU.
  const { device, sizes, fallbacks } = placementOf(profile.nodes, 'webgpu')
  expect(device).toBe(0)
  expect(sizes['Concat']).toBe(1)
  expect(fallbacks).toMatchObject({ Mul: 1, Expand: 1 })
})

describe('checks of a device', () => {
  it('compare with the CPU, the CPU itself included', async () => {
    const results = await collect(checkDevice('cpu', ['op matmul', 'op scatterAdd']))
    expect(results.map(({ check, status, maxError }) => [check, status, maxError])).toEqual([
      ['device', 'ok', undefined],
      ['op matmul', 'ok', 0],
      ['op scatterAdd', 'ok', 0],
    ])
    expect(results[1]!.placement!.device).toBeGreaterThan(10)
  })

  it('say that a device is not there', async () => {
    const device = process.platform === 'win32' ? 'coreml' : 'dml'
    const results = await collect(checkDevice(device))
    expect(results).toHaveLength(1)
    expect(results[0]).toMatchObject({ check: 'device', status: 'fail' })
    expect(results[0]!.detail).toContain(`the device "${device}" cannot be used here`)
  })

  it.skipIf(process.platform !== 'linux')('go on when the process of one dies', async () => {
    const children = () => {
      const tasks = `/proc/${process.pid}/task`
      const pids = readdirSync(tasks).flatMap(
        (t) => readFileSync(join(tasks, t, 'children'), 'utf8').match(/\d+/g) ?? [],
      )
      return pids.filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('check-process'))
    }
    const seen: string[] = []
    let killed = false
    for await (const { check, status, detail } of checkDevice('cpu', ['op add', 'op attention', 'op matmul'])) {
      seen.push(`${check} ${status}`)
      if (killed && status === 'fail') expect(detail).toBe('ended the process (SIGKILL)')
      if (check !== 'op add' || killed) continue
      for (const pid of children()) process.kill(Number(pid), 'SIGKILL')
      killed = true
    }
    expect(killed).toBe(true)
    expect(seen.filter((line) => line.endsWith('fail'))).toHaveLength(1)
    const checked = new Set(seen.map((line) => line.replace(/ (ok|fail)$/, '')))
    expect(checked).toEqual(new Set(['device', 'op add', 'op attention', 'op matmul']))
  })
})

describe.skipIf(!webgpu)(`WebGPU (${found!.detail})`, () => {
  it(
    'computes every op and its gradient, and every graph of the tiny model, without the CPU',
    { timeout: 600_000 },
    async () => {
      const results = await collect(checkDevice('webgpu'))
      expect(results.filter(({ status }) => status !== 'ok')).toEqual([])
      for (const name of Object.keys(opCases)) expect(results.map(({ check }) => check)).toContain(`op ${name}`)
      const graphs = results.filter(({ check }) => check.startsWith('graph policy'))
      expect(graphs).toHaveLength(2)
      for (const { placement } of graphs) {
        expect(placement!.device).toBeGreaterThan(500)
        expect(placement).toMatchObject({ fallbacks: {}, copies: {} })
      }
      expect(results.length).toBeGreaterThan(deviceChecks.length)
    },
  )

  const variants = ['smolvlm/tiny64', 'llava/small-crop', 'llava_next/small-anyres', 'qwen2_5_vl/small']
  it.each(variants)('%s says there what it says on the CPU', { timeout: 300_000 }, async (variant) => {
    const says = async (device: string) => {
      const model = ['--model', join(goldens, variant, 'checkpoint'), '--image', goldenImage('square64.png')]
      const how = ['--prompt', 'what', '--max-new-tokens', '3', '--device', device, '--json']
      const { code, stdout, stderr } = await program(['generate', ...model, ...how])
      expect(code, stderr).toBe(0)
      return JSON.parse(stdout) as { tokens: number[]; logprobs: number[] }
    }
    const [cpu, gpu] = [await says('cpu'), await says('webgpu')]
    expect(gpu.tokens).toEqual(cpu.tokens)
    gpu.logprobs.forEach((x, i) => expect(x).toBeCloseTo(cpu.logprobs[i]!, 3))
  })
})
