import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { createJudge } from '../actors/rewards/recipes/registry.ts'
import { exactSimilarity, meanDissimilarities, openSimilarity } from '../actors/rewards/similarity.ts'
import type { Similarity } from '../actors/rewards/similarity.ts'
import { loadConfig, readConfig } from '../configs/load.ts'
import { calibrate } from '../models/similarity/calibrate.ts'
import { defaultDirectory, embeddingCache, openEmbedder } from '../models/similarity/embedder.ts'
import { EMBEDDING_MODELS } from '../models/similarity/names.ts'
import type { TextEmbedder } from '../models/similarity/embedder.ts'
import { program } from './support/program.ts'
import { SMALL_LEARNING } from './support/small-run.ts'

/** Answers of one kind exclude each other. */
const EXCLUSIVE = [
  'red orange yellow green blue purple pink brown black white grey teal cyan magenta',
  'circle square rectangle triangle star cross ring oval diamond hexagon heart arrow',
  '0 1 2 3 4 5 6 7 8 9 10',
  'left right top bottom',
  'yes no none',
  'small big medium',
  'cat dog horse cow sheep bird elephant bear',
  'car truck bus train boat bicycle',
  'wood metal glass plastic stone',
].map((line) => line.split(' '))

const SYNONYMS =
  `big large, small little, grey gray, purple violet, car automobile, sofa couch, cyan teal, bike bicycle,
  kid child, circle circles, rock stone, plane airplane, dog dogs, ocean sea, tv television, rug carpet`
    .split(',')
    .map((pair) => pair.trim().split(' ') as [string, string])

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * b[i]!, 0)

describe('the shipped embedding', () => {
  let embedder: TextEmbedder
  let similarity: Similarity
  beforeAll(async () => {
    embedder = await openEmbedder()
    similarity = await openSimilarity({ kind: 'embedding', model: null })
  })
  const cosine = async (a: string, b: string) => {
    const [x, y] = await embedder.embed([a, b])
    return dot(x!, y!)
  }

  it('gives unit vectors, in order, whatever else is in the batch', async () => {
    const texts = Array.from({ length: 300 }, (_, i) => `the red circle number ${i}`)
    const together = await embedder.embed(texts)
    const [alone] = await embedder.embed([texts[299]!])
    expect(together).toHaveLength(300)
    expect(dot(together[299]!, alone!)).toBeCloseTo(1, 5)
    expect(await embedder.embed([])).toEqual([])
    expect(dot(...((await embedder.embed(['', ''])) as [Float32Array, Float32Array]))).toBe(0)
  })

  it('scores answers that exclude each other 0', async () => {
    for (const answers of EXCLUSIVE) {
      for (const reference of answers) {
        const others = answers.filter((answer) => answer !== reference && !isSynonym(answer, reference))
        expect(await similarity.compare(reference, others), reference).toEqual(others.map(() => 0))
      }
    }
  })

  it('scores synonyms near 1', async () => {
    const scores = await Promise.all(SYNONYMS.map(async ([a, b]) => (await similarity.compare(a, [b]))[0]!))
    expect(scores.filter((score) => score > 0.9).length / scores.length).toBeGreaterThan(0.85)
  })

  it('scores equal answers 1, however they are written, and also unknown words', async () => {
    expect(await similarity.compare('two', ['2', 'Two!', 'the two'])).toEqual([1, 1, 1])
    expect(await similarity.compare('Blorp', ['blorp', 'flarn'])).toEqual([1, 0])
    expect(await similarity.compare('', ['red'])).toEqual([0])
  })

  it('gives part of a phrase part of the score', async () => {
    const [same, part, none] = await similarity.compare('red circle', ['the red circle', 'blue circle', 'green square'])
    expect(same).toBe(1)
    expect(part).toBeGreaterThan(0)
    expect(part).toBeLessThan(0.9)
    expect(none).toBe(0)
  })

  it('tells questions apart by what they ask', async () => {
    const color = 'what color is the circle?'
    expect(await cosine(color, 'what color is the square?')).toBeGreaterThan(
      (await cosine(color, 'how many dogs are there?')) + 0.3,
    )
    const dissimilarities = await similarity.dissimilarities([color, color, 'how many dogs are there?'])
    expect(dissimilarities[2]).toBeGreaterThan(dissimilarities[0]!)
  })

  it('judges with it', async () => {
    const question = 'what is it?'
    const input = { question, silver: 'couch', answers: ['sofa', 'table'], others: [question], malformed: null }
    const verdict = await createJudge('silver-reference').judge(input, similarity)
    expect(verdict.reasoner!.rewards[0]).toBeGreaterThan(0.9)
    expect(verdict.reasoner!.rewards[1]).toBe(0)
  })
})

describe('similarity', () => {
  it('is exact on demand', async () => {
    const similarity = await openSimilarity({ kind: 'exact', model: null })
    expect(similarity).toBe(exactSimilarity)
    expect(await similarity.compare('Two', ['2', 'three'])).toEqual([1, 0])
    expect(await similarity.dissimilarities(['a b', 'A b', 'c'])).toEqual([0.5, 0.5, 1])
  })

  it('sums cosines instead of pairing', () => {
    const unit = (angle: number) => Float32Array.of(Math.cos(angle), Math.sin(angle))
    const vectors = [0, 0.3, 1.2].map(unit)
    const pairwise = vectors.map(
      (a, i) => 1 - vectors.reduce((sum, b, j) => (i === j ? sum : sum + dot(a, b)), 0) / (vectors.length - 1),
    )
    meanDissimilarities(vectors).forEach((value, i) => expect(value).toBeCloseTo(pairwise[i]!, 5))
  })

  it('says what a model directory lacks', async () => {
    const open = (model: string) => openSimilarity({ kind: 'embedding', model })
    const directory = mkdtempSync(join(tmpdir(), 'visplay-similarity-'))
    await expect(open(directory)).rejects.toThrow(/model\.onnx.*missing.*similarity\.model/)
    await expect(open(join(directory, 'gone'))).rejects.toThrow(/gone: no such directory on this machine/)
  })
})

describe('another model', () => {
  it('is a directory with a calibration of its own, or measured on known words', async () => {
    const directory = join(mkdtempSync(join(tmpdir(), 'visplay-similarity-')), 'other-words')
    cpSync(defaultDirectory, directory, { recursive: true })
    writeFileSync(join(directory, 'calibration.json'), '{"zero": 0.2, "one": 0.9}')
    const own = await openSimilarity({ kind: 'embedding', model: directory })
    expect(own.name).toBe('fastembed:other-words@0.2-0.9')
    const [sofa, couch] = await (await openEmbedder()).embed(['sofa', 'couch'])
    expect((await own.compare('sofa', ['couch']))[0]).toBeCloseTo((dot(sofa!, couch!) - 0.2) / 0.7, 5)
    rmSync(join(directory, 'calibration.json'))
    const { calibration } = await openEmbedder(directory)
    // The shipped model's own, from trials: 0.5 and 0.8.
    expect(Math.abs(calibration.zero - 0.5)).toBeLessThan(0.05)
    expect(Math.abs(calibration.one - 0.8)).toBeLessThan(0.05)
    expect(await openEmbedder(directory)).toMatchObject({ calibration })
  })

  it('is not measured where answers that exclude each other are as alike as synonyms', async () => {
    const same = Float32Array.of(1, 0)
    expect(await calibrate((texts) => Promise.resolve(texts.map(() => same)))).toEqual({ zero: 1, one: 1 })
  })

  it('is one that fastembed knows: its list is ours, and what cannot be fetched is said with where to put it', async () => {
    const { EmbeddingModel } = await import('fastembed')
    const known = Object.values(EmbeddingModel).filter((name) => name !== EmbeddingModel.CUSTOM)
    expect([...EMBEDDING_MODELS].toSorted()).toEqual(known.toSorted())
    const file = join(mkdtempSync(join(tmpdir(), 'visplay-similarity-')), 'file')
    writeFileSync(file, '')
    const cache = embeddingCache({ XDG_CACHE_HOME: file })
    await expect(openEmbedder('fast-bge-small-en-v1.5', cache)).rejects.toThrow(
      /fast-bge-small-en-v1\.5 cannot be fetched \(.*unpack.*fast-bge-small-en-v1\.5\/tokenizer\.json.*similarity\.model/,
    )
  })

  it('is what a run judges with, and what its configuration says', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'visplay-similarity-'))
    const directory = join(dir, 'other-words')
    cpSync(defaultDirectory, directory, { recursive: true })
    writeFileSync(join(directory, 'calibration.json'), '{"zero": 0.2, "one": 0.9}')
    const run = join(dir, 'run')
    const args = ['--steps', '1', '--out', run, ...SMALL_LEARNING, '--set', `similarity.model=${directory}`]
    const { code, stderr } = await program(['evolve', '--json', ...args])
    expect(code, stderr).toBe(0)
    expect(readConfig(join(run, 'config.yaml')).similarity).toEqual({ kind: 'embedding', model: directory })
    const { stdout } = await program(['export', run, '--ndjson'])
    const records = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string; data: { judge: object } })
    const judges = records.filter(({ event }) => event === 'verdict').map(({ data }) => data.judge)
    expect(judges.length).toBeGreaterThan(0)
    for (const judge of judges) expect(judge).toMatchObject({ similarity: 'fastembed:other-words@0.2-0.9' })
    // A name is no path, a directory is one.
    const named = loadConfig({ sets: ['similarity.model=fast-bge-base-en'] })
    expect(named.similarity.model).toBe('fast-bge-base-en')
    expect(loadConfig({ sets: ['similarity.model=words'] }).similarity.model).toBe(resolve('words'))
    rmSync(directory, { recursive: true })
    const gone = await program(['replay', run])
    expect([gone.code, gone.stderr]).toEqual([1, expect.stringContaining('no such directory on this machine')])
    rmSync(dir, { recursive: true, force: true, maxRetries: 20 })
  }, 240_000)
})

function isSynonym(a: string, b: string): boolean {
  return SYNONYMS.some((pair) => pair.includes(a) && pair.includes(b))
}
