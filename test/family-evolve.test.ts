/**
 * Steps of evolution with a checkpoint of every family, over the real bus. Their weights are random, so what they say is
 * no question: a judge of the test's own rewards it all the same, so that there is something to learn.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { PACKAGE_ROOT } from '../configs/load.ts'
import { program, startProgram } from './support/program.ts'
import { settings } from './support/small-run.ts'

const GOLDENS = join(PACKAGE_ROOT, 'test', 'goldens')
const STEPS = 2

const JUDGE = `
import { defineJudge } from 'visplay/actor'

let judged = 0
export default defineJudge({
  name: 'every-other',
  version: '1',
  async judge() {
    return { questioner: { reward: ++judged % 2, parts: {} }, reasoner: null }
  },
})
`

const SMALL = settings(
  'groups.images=2',
  'groups.questions=4',
  'groups.answers=2',
  'generation.maxQuestionTokens=6',
  'generation.maxAnswerTokens=4',
  'optimizer.warmup=0',
  'optimizer.lr=1e-2',
  'loss.beta=0.02',
  'model.train=lora',
  'model.rollouts=int8',
  'workers=[model,questioner,reasoner]',
)

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'visplay-families-'))
  await writeFile(join(dir, 'judge.ts'), JUDGE)
})
afterAll(() => rm(dir, { recursive: true, force: true, maxRetries: 20 }))

describe.each(['smolvlm/tiny64', 'llava/small-crop', 'llava_next/small-anyres', 'qwen2_5_vl/small'])(
  '%s',
  (variant) => {
    test(`learns for ${STEPS} steps, and what it has become can be used`, async () => {
      const model = join(GOLDENS, variant, 'checkpoint')
      const out = join(dir, variant.replace('/', '-'))
      const images = join(GOLDENS, 'images')
      const given = ['--model', model, '--images', images, '--out', out, '--steps', String(STEPS)]
      const evolving = startProgram(['evolve', '--json', ...given, ...SMALL])
      await evolving.said('join')
      const judging = startProgram(['actor', join(dir, 'judge.ts'), '--run', out, '--json'])
      const { code, stderr } = await evolving.ended
      await judging.ended
      expect(code, stderr).toBe(0)
      const steps = evolving.events().flatMap((e) => (e.event === 'step' ? [e.metrics] : []))
      expect(steps).toHaveLength(STEPS)
      for (const metrics of steps) {
        expect(Object.values(metrics).filter((value) => value !== null && !Number.isFinite(value))).toEqual([])
        expect(metrics['questioner/reward']).toBeCloseTo(0.5)
        expect(metrics['grad_norm']).toBeGreaterThan(0)
        expect(Number.isFinite(metrics['loss'])).toBe(true)
        // Rollouts are rounded: the policy is another one, and the ratios say how far.
        const ratio = (of: string) => metrics[`sampling/importance_sampling_ratio/${of}`]!
        expect(metrics['sampling/sampling_logp_difference/mean']).toBeGreaterThan(1e-4)
        expect(metrics['sampling/sampling_logp_difference/max']).toBeLessThan(5)
        expect(ratio('mean')).toBeCloseTo(1, 0)
        expect(ratio('min')).toBeLessThan(1)
        expect(ratio('max')).toBeGreaterThan(1)
        expect(ratio('max')).toBeLessThanOrEqual(2)
        expect(metrics['questioner/sampling/importance_sampling_ratio/max']).toBe(ratio('max'))
      }
      expect((await program(['audit', out, '--json'])).stdout).toContain('"ok":true')
      const merged = join(dir, `${variant.replace('/', '-')}-merged`)
      const exported = await program(['export', out, '--format', 'merged', '--out', merged, '--json'])
      expect(exported.code, exported.stderr).toBe(0)
      const asked = [
        '--image',
        join(images, 'square64.png'),
        '--prompt',
        'What is it?',
        '--max-new-tokens',
        '8',
        '--json',
      ]
      const [before, after, adapted] = await Promise.all([
        program(['generate', '--model', model, ...asked]),
        program(['generate', '--model', merged, ...asked]),
        program(['generate', '--model', model, '--adapter', join(out, 'checkpoints', 'final'), ...asked]),
      ])
      const [, one, other] = [before, after, adapted].map(({ stdout, stderr }) => {
        expect(stdout, stderr).not.toBe('')
        return JSON.parse(stdout) as { readonly tokens: number[]; readonly logprobs: number[] }
      })
      expect(one!.tokens).toEqual(other!.tokens)
      one!.logprobs.forEach((logprob, t) => expect(logprob).toBeCloseTo(other!.logprobs[t]!, 3))
      expect(after.stdout).not.toBe(before.stdout)
    })
  },
)
