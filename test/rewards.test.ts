import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Completion, EventData } from '../bus/messages.ts'
import { eventSchemas } from '../bus/messages.ts'
import { bleu, gramIndex } from '../actors/rewards/bleu.ts'
import { clusterShares } from '../actors/rewards/cluster-share.ts'
import { difficultyOf } from '../actors/rewards/difficulty.ts'
import { diversityOf, wordDissimilarities } from '../actors/rewards/diversity.ts'
import { averageLinkage } from '../actors/rewards/linkage.ts'
import { extractAnswer, normalizeAnswer } from '../actors/rewards/normalize.ts'
import { parseQuestion } from '../actors/rewards/parse-question.ts'
import type { JudgeInput } from '../actors/rewards/recipe.ts'
import { createJudge, recipes } from '../actors/rewards/recipes/registry.ts'
import { exactSimilarity } from '../actors/rewards/similarity.ts'
import { stepMetrics } from '../actors/rewards/step-metrics.ts'
import { countVotes } from '../actors/rewards/vote.ts'

const said = (text: string, finished = true) => ({ text, finished })

describe('normalizeAnswer', () => {
  it.each([
    ['The Red Circle.', 'red circle'],
    ['two', '2'],
    ['Twenty-one!', '21'],
    ['forty two dogs', '42 dogs'],
    ['1,000', '1000'],
    ['3.50 m', '3.50 m'],
    ['-3', '-3'],
    ['.5', '0.5'],
    ['left-hand  side', 'left hand side'],
    ["I don't know", 'i dont know'],
    ['ＲＥＤ', 'red'],
    ['A', 'a'],
    ['…', ''],
    ['Größe', 'größe'],
  ])('%j is %j', (text, expected) => expect(normalizeAnswer(text)).toBe(expected))

  it('changes nothing the second time', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const once = normalizeAnswer(text)
        expect(normalizeAnswer(once)).toBe(once)
      }),
    )
  })
})

describe('extractAnswer', () => {
  it.each([
    ['red', 'red'],
    ['<think>maybe <answer>blue</answer></think> <answer> Red </answer>', 'Red'],
    ['so \\boxed{\\frac{1}{2}} it is', '\\frac{1}{2}'],
    ['I see a circle.\nIt is red.', 'It is red.'],
    ['Reasoning first. Answer: red', 'red'],
    ['', null],
    ['...', null],
    ['<answer></answer>', null],
    ['<image> red', null],
    ['<|image_pad|>', null],
  ])('%j gives %j', (text, expected) => expect(extractAnswer(said(text))).toBe(expected))

  it('takes nothing from a completion that was cut off', () => expect(extractAnswer(said('red', false))).toBeNull())
})

describe('parseQuestion', () => {
  it.each([
    ['what color is the circle? red', 'what color is the circle?', 'red', 'what color'],
    ['what color is the circle ? red', 'what color is the circle ?', 'red', 'what color'],
    ['Question: How many dogs are there?\nAnswer: two', 'How many dogs are there?', 'two', 'how many'],
    ['question: Is it a dog? answer: no', 'Is it a dog?', 'no', 'is it'],
    [
      '<type>Counting</type>\n<question>How many dogs?</question>\n<answer>2</answer>',
      'How many dogs?',
      '2',
      'counting',
    ],
    ['<question>How many\n dogs?</question> <answer>2</answer>', 'How many dogs?', '2', 'how many'],
  ])('%j', (text, question, silver, type) =>
    expect(parseQuestion(said(text))).toEqual({ question, silver, type, malformed: null }),
  )

  it.each([
    ['what color is the circle', 'no question mark'],
    ['? red', 'empty question'],
    ['what color? red', 'question shorter than 3 words'],
    ['what color is it?', 'empty silver answer'],
    ['what color is it? ...', 'empty silver answer'],
    ['what color is it? is it red?', 'more than one question mark'],
    ['what color is <image>? red', 'image placeholder <image> in the text'],
    ['what is it? one two three four five six seven eight nine', 'silver answer longer than 8 words'],
    ['<question>what is it? red', 'the <question> tag is not closed'],
    ['<question>what is it?</question> red', 'no <answer>…</answer> after the question'],
    ['<question>tell the color</question><answer>red</answer>', 'no question mark'],
    ['', 'no question mark'],
  ])('%j is malformed', (text, reason) => expect(parseQuestion(said(text))).toEqual({ malformed: reason }))

  it('refuses a completion that was cut off', () =>
    expect(parseQuestion(said('what color is it? red', false))).toEqual({ malformed: 'unfinished completion' }))

  it('never throws, and what it accepts is whole', () => {
    const pieces = fc.constantFrom(
      'what',
      ' ',
      'is',
      '?',
      '<question>',
      '</question>',
      '<answer>',
      '</answer>',
      'red',
      '\n',
      ':',
    )
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 20 }), (parts) => {
        const parsed = parseQuestion(said(parts.join('')))
        if (parsed.malformed !== null) return
        expect(parsed.question).toMatch(/\?/)
        expect(normalizeAnswer(parsed.silver)).not.toBe('')
      }),
    )
  })
})

describe('countVotes', () => {
  it('counts normalised answers over all samples', () => {
    const vote = countVotes(['Two', '2', 'none', null], 'two')
    expect(vote).toMatchObject({ majority: '2', share: 0.5, agreement: 0.5, none: 0.25 })
  })
  it('gives a tie to the answer that came first', () => {
    expect(countVotes(['b', 'a', 'a', 'b'], 'x').majority).toBe('b')
  })
  it('has no majority without answers', () => {
    expect(countVotes([null, null], 'x')).toMatchObject({ majority: null, share: 0, agreement: 0 })
    expect(() => countVotes([], 'x')).toThrow('at least one answer')
  })
})

/** Made with nltk 3.10.4 (sentence_bleu, SmoothingFunction().method1) and scikit-learn 1.9.1. */
const SENTENCES = [
  'what color is the circle ?',
  'what color is the square ?',
  'what shape is the red one ?',
  'how many red objects are there ?',
  'how many blue objects are there ?',
  'is there a red circle ?',
  'is there a blue star ?',
  'what color is at top left ?',
  'what shape is at bottom right ?',
  'what color is the circle ?',
  'is the star left of the ring ?',
  'why ?',
]
const BLEU_0 = [1, 0.537285, 0.086907, 0.034557, 0.034557, 0.095544, 0.048549, 0.183787, 0.04548, 1, 0.06846, 0.040825]

describe('diversity', () => {
  it('computes BLEU as NLTK does', () => {
    const grams = SENTENCES.map(gramIndex())
    grams.forEach((reference, j) => expect(bleu(reference, grams[0]!)).toBeCloseTo(BLEU_0[j]!, 5))
    expect(bleu(grams[4]!, grams[3]!)).toBeCloseTo(0.488923, 5)
    expect(bleu(grams[11]!, grams[10]!)).toBeCloseTo(0.027776, 5)
  })

  it('clusters questions as VisPlay does', () => {
    const shares = clusterShares(SENTENCES)
    expect(shares.map((share) => Math.round(share * 12))).toEqual([3, 3, 1, 1, 1, 1, 1, 1, 1, 3, 1, 1])
  })

  it('cuts average linkage where scikit-learn does', () => {
    const labels = averageLinkage(planeDistances(POINTS), new Array<number>(40).fill(1), 0.3)
    const pairs = (all: readonly number[]) => all.flatMap((a, i) => all.map((b, j) => a === b && i !== j))
    expect(pairs(labels)).toEqual(pairs(POINT_LABELS))
  })

  it('measures word dissimilarity to all others, as pair by pair', () => {
    const [a, b, c] = wordDissimilarities(['red dog?', 'Red dog?', 'blue cat?'])
    expect([a, b, c].map((x) => Number(x!.toFixed(5)))).toEqual([0.5, 0.5, 1])
    expect(wordDissimilarities(['alone?'])).toEqual([0])
  })

  it('answers 4096 questions of one step from one computation', async () => {
    const colours = ['red', 'blue', 'green', 'teal', 'pink', 'gold', 'grey', 'lime']
    const questions = Array.from(
      { length: 4096 },
      (_, i) => `what is left of the ${colours[i % 8]} thing ${i % 1500} ?`,
    )
    const started = performance.now()
    const judge = createJudge('majority-vote')
    for (const question of questions) {
      await judge.judge({ ...group(['a', 'b'], 'a'), question, others: questions }, exactSimilarity)
    }
    expect(performance.now() - started).toBeLessThan(20_000)
  })

  it('names a question that is missing from its step', async () => {
    await expect(diversityOf('x?', ['y?'], 'words', exactSimilarity)).rejects.toThrow('"x?" is missing')
    expect(await diversityOf('x?', ['x?', 'x?', 'y?'], 'embedding', exactSimilarity)).toBe(0.5)
  })
})

describe('difficulty', () => {
  it('is hard or peaked', () => {
    expect([0, 0.5, 1].map((s) => difficultyOf(s, 'hard'))).toEqual([1, 0.5, 0])
    expect([0, 0.25, 0.5, 1].map((s) => difficultyOf(s, 'peak'))).toEqual([0, 0.25, 0.5, 0])
  })
})

const QUESTION = 'what color is it?'
const OTHER = 'how many dogs are there?'
function group(answers: readonly (string | null)[], silver: string): JudgeInput {
  return { question: QUESTION, silver, answers, others: [QUESTION, OTHER], malformed: null }
}
const judged = (recipe: string, input: JudgeInput, config: unknown = {}) =>
  createJudge(recipe, config).judge(input, exactSimilarity)

describe('recipes', () => {
  it.each(Object.keys(recipes))(
    '%s gives a verdict that the wire accepts, and −1 for a malformed question',
    async (recipe) => {
      const well = await judged(recipe, group(['red', 'Red', 'blue', null], 'red'))
      const malformed = await judged(recipe, { ...group([], ''), malformed: 'no question mark' })
      expect(malformed).toEqual({ questioner: { reward: -1, parts: { malformed: -1 } }, reasoner: null })
      for (const verdict of [well, malformed]) {
        const event = { step: 0, group: 'g', judge: { name: 'judge', version: '1' }, recipe, ...verdict }
        expect(eventSchemas.verdict.parse(event)).toEqual(event)
      }
      expect(well.reasoner).toMatchObject({ majority: 'red', share: 0.5, agreement: 0.5 })
    },
  )

  it('consensus trains where silver is the majority', async () => {
    const { questioner, reasoner } = await judged('consensus', group(['red', 'red', 'red', 'blue'], 'Red.'))
    expect(questioner).toEqual({ reward: 1.25, parts: { difficulty: 0.25, diversity: 1, gate: 1 } })
    expect(reasoner).toMatchObject({ rewards: [1, 1, 1, 0], keep: true, dropped: null })
  })

  it('consensus drops and does not reward where silver is not the majority', async () => {
    const { questioner, reasoner } = await judged('consensus', group(['red', 'red', 'red', 'blue'], 'blue'))
    expect(questioner.reward).toBe(0)
    expect(reasoner).toMatchObject({ keep: false, dropped: 'the silver answer is not the majority answer' })
  })

  it('a gate for the Questioner alone lets the Reasoner learn from every silver answer', async () => {
    const doubtful = group(['red', 'red', 'red', 'blue'], 'blue')
    const { questioner, reasoner } = await judged('consensus', doubtful, { gate: 'questioner' })
    expect(questioner.reward).toBe(0)
    expect(reasoner).toMatchObject({ rewards: [0, 0, 0, 1], keep: true, dropped: null })
  })

  it('consensus passes a negative value through a closed gate', async () => {
    const { questioner } = await judged('consensus', group(['red', 'blue', 'blue'], 'red'), { alpha: -1, beta: -1 })
    expect(questioner.reward).toBeLessThan(-1)
  })

  it('consensus skips "none" as configured', async () => {
    const doubtful = group(['red', 'red', 'red', 'none'], 'red')
    const unanimous = group(['none', 'none', 'none', 'red'], 'none')
    const kept = async (skipNone: string) =>
      Promise.all(
        [doubtful, unanimous].map(async (input) => {
          const verdict = await judged('consensus', input, { skipNone })
          return [verdict.reasoner!.keep, verdict.questioner.reward > 0]
        }),
      )
    expect(await kept('any')).toEqual([
      [false, false],
      [false, false],
    ])
    expect(await kept('doubtful')).toEqual([
      [false, false],
      [true, false],
    ])
    expect(await kept('never')).toEqual([
      [true, true],
      [true, true],
    ])
  })

  it('consensus punishes a missing answer and drops a group without any', async () => {
    expect((await judged('consensus', group(['red', 'red', null], 'red'))).reasoner!.rewards).toEqual([1, 1, -1])
    expect((await judged('consensus', group([null, null], 'red'))).reasoner).toMatchObject({
      keep: false,
      dropped: 'no final answer in the group',
      majority: null,
    })
  })

  it('silver-reference pays for similarity to silver, whatever the majority', async () => {
    const { questioner, reasoner } = await judged('silver-reference', group(['red', 'red', 'red', 'blue'], 'blue'))
    expect(questioner).toEqual({ reward: 1.75, parts: { difficulty: 0.75, diversity: 1, similarity: 0.25 } })
    expect(reasoner).toMatchObject({ rewards: [0, 0, 0, 1], keep: true, agreement: 0.25, share: 0.75 })
  })

  it('majority-vote labels by majority and keeps the middle', async () => {
    const half = await judged('majority-vote', group(['red', 'red', 'blue', 'pink'], 'teal'))
    expect(half.questioner).toEqual({ reward: 0, parts: { difficulty: 0.5, clusterShare: 0.5 } })
    expect(half.reasoner).toMatchObject({ rewards: [1, 1, 0.1, 0.1], keep: true })
    const keep = async (answers: string[]) => (await judged('majority-vote', group(answers, 'x'))).reasoner!.keep
    const of10 = (n: number) => Array.from({ length: 10 }, (_, i) => (i < n ? 'red' : String(i)))
    expect(await Promise.all([2, 3, 8, 9].map((n) => keep(of10(n))))).toEqual([false, true, true, false])
  })

  it('adds rewards of the registry by name, and refuses unknown names and knobs', async () => {
    const extra = { format: 0.5, 'cluster-share': -1 }
    const { questioner, reasoner } = await judged('consensus', group(['red', null], 'red'), { extra })
    expect(reasoner!.rewards).toEqual([1.5, -1])
    expect(questioner).toMatchObject({ reward: 0.5 + 1 - 0.5, parts: { 'cluster-share': 0.5 } })
    expect(() => createJudge('consensus', { extra: { novelty: 1 } })).toThrow('agreement, cluster-share')
    expect(() => createJudge('consensus', { alfa: 1 })).toThrow('alfa')
    expect(() => createJudge('consensus', { keep: [0.8, 0.3] })).toThrow('lower end')
    expect(() => createJudge('consent')).toThrow('no recipe is called "consent"')
  })
})

describe('stepMetrics', () => {
  it("measures both roles under TRL's names", () => {
    const metrics = stepMetrics(record())
    expect(metrics).toMatchObject({
      'questioner/valid_rate': 0.75,
      'questioner/distinct': 2 / 3,
      'questioner/types': 2,
      'questioner/reward': 0,
      'questioner/frac_reward_zero_std': 0.5,
      'questioner/completions/mean_length': 2,
      'questioner/completions/clipped_ratio': 0.25,
      'questioner/rewards/difficulty/mean': 0.25,
      'reasoner/reward': 0.5,
      'reasoner/frac_reward_zero_std': 0.5,
      'reasoner/agreement': 0.75,
      'reasoner/majority_share': 0.75,
      'reasoner/none_rate': 0.25,
      'filter/keep_rate': 0.5,
    })
    expect(metrics['questioner/type_entropy']).toBeCloseTo((Math.log(3) - (2 / 3) * Math.log(2)) / Math.log(2), 10)
    expect(metrics['reasoner/reward_std']).toBeCloseTo(Math.sqrt(1 / 6), 10)
  })

  it('is null where there is nothing to measure', () => {
    const empty = stepMetrics({ questions: [], answers: [], verdicts: [], typesAtStart: null })
    expect(empty['reasoner/agreement']).toBeNull()
    expect(empty['questioner/completions/min_length']).toBeNull()
    expect(Object.values(empty).every((value) => value === null || Number.isFinite(value))).toBe(true)
  })
})

function completion(id: string, finished = true): Completion {
  return { id, text: '', tokens: [1, 2], logprobs: [-1, -1], finished }
}

function record() {
  const image = `sha256-${'0'.repeat(64)}`
  const question = (name: string, text: string, type: string, malformed: string | null = null) => ({
    group: name,
    completion: completion(name, malformed === null),
    question: text,
    silver: 'red',
    type,
    malformed,
  })
  const questions = [
    [question('a', 'What color is it?', 'what color'), question('b', 'what color is it?', 'what color')],
    [question('c', 'how many are there?', 'how many'), question('d', '', '', 'unfinished completion')],
  ].map((list, index) => ({ step: 0, index, expects: 2, image, name: 'x', prompt: '', weights: 0, questions: list }))
  const answers = [
    ['red', 'none'],
    ['red', 'red'],
  ].map((parsed, i) => ({
    step: 0,
    group: 'ac'[i]!,
    image,
    prompt: '',
    weights: 0,
    completions: [completion('x'), completion('y')],
    parsed,
  }))
  const verdict = (name: string, reward: number, rewards: number[] | null, share: number): EventData<'verdict'> => ({
    step: 0,
    group: name,
    judge: { name: 'judge', version: '1' },
    recipe: 'consensus',
    questioner: { reward, parts: rewards ? { difficulty: share === 1 ? 0 : 0.5 } : {} },
    reasoner: rewards && { rewards, keep: true, dropped: null, agreement: share, majority: 'red', share },
  })
  const verdicts = [
    verdict('a', 0.5, [1, 0], 0.5),
    verdict('b', 0.5, null, 0),
    verdict('c', 0, [0.5, 0.5], 1),
    verdict('d', -1, null, 0),
  ]
  return { questions, answers, verdicts, typesAtStart: 2 }
}

/** 40 random points of the plane and scikit-learn's clusters of average linkage at 0.3. */
const POINTS: readonly (readonly [number, number])[] = [
  [0.637, 0.2698],
  [0.041, 0.0165],
  [0.8133, 0.9128],
  [0.6066, 0.7295],
  [0.5436, 0.9351],
  [0.8159, 0.0027],
  [0.8574, 0.0336],
  [0.7297, 0.1757],
  [0.8632, 0.5415],
  [0.2997, 0.4227],
  [0.0283, 0.1243],
  [0.6706, 0.6472],
  [0.6154, 0.3837],
  [0.9972, 0.9808],
  [0.6855, 0.6505],
  [0.6884, 0.3889],
  [0.1351, 0.7215],
  [0.5254, 0.3102],
  [0.4858, 0.8895],
  [0.934, 0.3578],
  [0.5715, 0.3219],
  [0.5943, 0.3379],
  [0.3916, 0.8903],
  [0.2272, 0.6232],
  [0.084, 0.8326],
  [0.7871, 0.2394],
  [0.8765, 0.0586],
  [0.3361, 0.1503],
  [0.4503, 0.7963],
  [0.2306, 0.052],
  [0.4046, 0.1985],
  [0.0908, 0.5803],
  [0.2987, 0.672],
  [0.1995, 0.9421],
  [0.3651, 0.1055],
  [0.6291, 0.9272],
  [0.4404, 0.9546],
  [0.4999, 0.4252],
  [0.6202, 0.9951],
  [0.9489, 0.46],
]
const POINT_LABELS = [
  6, 7, 4, 1, 1, 2, 2, 2, 5, 0, 7, 1, 6, 4, 1, 6, 0, 6, 1, 5, 6, 6, 1, 0, 0, 2, 2, 3, 1, 3, 3, 0, 0, 0, 3, 1, 1, 6, 1,
  5,
]

function planeDistances(points: typeof POINTS): Float32Array {
  return Float32Array.from(points.flatMap(([x, y]) => points.map(([u, v]) => Math.hypot(x - u, y - v))))
}
