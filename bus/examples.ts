/** One example of every message, as documentation and for tests: a message without one does not compile. */
import type { EventData, EventName, Head, LiveData, LiveKind, Task, TaskKind } from './messages.ts'

const image = `sha256-${'1a'.repeat(32)}`
const adapter = `sha256-${'2b'.repeat(32)}`
const optimizer = `sha256-${'3c'.repeat(32)}`
const gradient = `sha256-${'4d'.repeat(32)}`

const completion = { id: 'q-0-3-0', text: 'red', tokens: [412, 2], logprobs: [-0.31, -0.02], finished: true }

const head: Head = { version: 4, parent: 3, adapter, optimizer, epoch: 1, consumed: ['g-0-3-0'] }

export const taskExamples: { [K in TaskKind]: Task<K> } = {
  'questioner.images': {
    step: 0,
    expects: 64,
    minWeights: 0,
    images: [{ id: 'q-0-3', index: 3, image, name: 'kitchen/table.jpg' }],
  },
  'reasoner.questions': {
    step: 0,
    minWeights: 0,
    questions: [{ group: 'g-0-3-0', image, question: 'What colour is the cup?', silver: 'red' }],
  },
  'judge.groups': { step: 0, groups: [{ group: 'g-0-3-0', questions: 'q-0-3', answers: 'g-0-3-0' }] },
  'model.generate': {
    image,
    prompt: 'Question: What colour is the cup? Answer:',
    samples: 8,
    maxNewTokens: 16,
    temperature: 1,
    seed: 17,
    minWeights: 0,
    cohort: { id: 'c-0', size: 64 },
    weights: null,
  },
  'model.logprobs': { image, prompt: 'Question: …', completions: [[412, 2]], minWeights: 0 },
  'model.gradient': { step: 0, index: 0, batch: gradient, weights: 0 },
}

const scores = { n: 400, mean1: 0.52, greedy: 0.55, maj: 0.57 }

export const eventExamples: { [E in EventName]: EventData<E> } = {
  image: { image, name: 'kitchen/table.jpg', bytes: 48_213 },
  questions: {
    step: 0,
    index: 3,
    expects: 64,
    image,
    name: 'kitchen/table.jpg',
    prompt: 'Ask a question about the image.',
    weights: 0,
    questions: [
      {
        group: 'g-0-3-0',
        completion,
        question: 'What colour is the cup?',
        silver: 'red',
        type: 'colour',
        malformed: null,
      },
    ],
  },
  answers: {
    step: 0,
    group: 'g-0-3-0',
    image,
    prompt: 'Question: …',
    weights: 0,
    completions: [completion],
    parsed: ['red'],
  },
  verdict: {
    step: 0,
    group: 'g-0-3-0',
    judge: { name: 'judge', version: '1' },
    recipe: 'consensus',
    questioner: { reward: 0.4, parts: { difficulty: 0.25, diversity: 0.15 } },
    reasoner: { rewards: [1], keep: true, dropped: null, agreement: 0.75, majority: 'red', share: 0.75 },
  },
  step: { step: 0, weights: 1, metrics: { 'reasoner/reward': 0.6, kl: null }, groups: ['g-0-3-0'], seconds: 0.8 },
  version: { weights: 4, parent: 3, adapter, optimizer, epoch: 1, consumed: ['g-0-3-0'] },
  eval: { weights: 4, set: 'held-out', ...scores, byType: { colour: scores }, probe: false },
  dropped: { step: 0, group: 'g-0-3-1', reason: 'all rewards of the group are equal' },
  dead: { kind: 'judge.groups', id: 'g-0-3-0', cause: 'given back at the last of 5 deliveries', deliveries: 5 },
  retried: { kind: 'judge.groups', id: 'g-0-3-0', attempt: 1 },
  remark: { name: 'spell-check', version: '1', about: 's12-i5-q0', data: { misspelt: 1 } },
  alarm: { step: 12, name: 'collusion', message: 'agreement is over 0.95', value: 0.97 },
  generated: { weights: 0, device: 'cpu', seconds: 0.2, promptTokens: 41, completions: [completion] },
  logprobs: { weights: 0, device: 'cpu', seconds: 0.1, logprobs: [[-0.31, -0.02]] },
  gradient: {
    weights: 0,
    device: 'cpu',
    seconds: 0.4,
    step: 0,
    index: 0,
    gradient,
    loss: 0.12,
    tokens: 320,
    metrics: { entropy: 0.8 },
  },
}

export const liveExamples: { [K in LiveKind]: LiveData<K> } = {
  heartbeat: { state: 'generating', weights: 4, inFlight: 12 },
  progress: { message: 'step 12 of 60', values: { step: 12 } },
  transition: { actor: 'reasoner', from: 'idle', to: 'answering', event: 'task' },
}

export const valueExamples = { head, document: { recipe: 'consensus', groups: { questions: 8, answers: 8 } } }
