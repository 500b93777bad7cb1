/** Whether answers agree with the silver answer, as a language model sees it: "a car" and "an automobile" do. */
import { LRUCache } from 'lru-cache'
import { normalizeAnswer } from '../rewards/normalize.ts'
import { ChatClient, type ChatOptions } from './chat-client.ts'

export interface Compared {
  readonly question: string
  readonly silver: string
  readonly answer: string
}

export interface LlmAgreementOptions extends ChatOptions {
  /** What the LLM is asked; it must say yes or no. */
  readonly prompt?: (compared: Compared) => string
}

export interface LlmAgreement {
  readonly model: string
  /**
   * agreements_G: 1 where an answer agrees with the silver answer, 0 where it does not or is missing, null where the LLM
   * said neither yes nor no. Equal answers agree without asking; each pair is asked about once.
   */
  agree(
    question: string,
    silver: string,
    answers_G: readonly (string | null)[],
    signal?: AbortSignal,
  ): Promise<(number | null)[]>
}

const CACHE = 50_000

const DEFAULT_PROMPT = ({ question, silver, answer }: Compared): string =>
  [
    `Question about a picture: ${question}`,
    `Reference answer: ${silver}`,
    `Given answer: ${answer}`,
    'Do both answers mean the same? Say only yes or no.',
  ].join('\n')

/** Opens the endpoint; throws LlmError when an option is wrong, or the endpoint is away or refuses the key. */
export async function llmAgreement({
  prompt = DEFAULT_PROMPT,
  ...options
}: LlmAgreementOptions): Promise<LlmAgreement> {
  const client = new ChatClient(options)
  await client.check()
  const said = new LRUCache<string, Promise<number | null>>({ max: CACHE })
  const ask = (text: string, signal?: AbortSignal): Promise<number | null> => {
    const known = said.get(text)
    if (known) return known
    const asked = client.ask(text, signal).then(agreementOf)
    said.set(text, asked)
    // A failure is not what the LLM says.
    asked.catch(() => said.delete(text))
    return asked
  }
  return {
    model: client.model,
    agree: (question, silver, answers_G, signal) => {
      const target = normalizeAnswer(silver)
      return Promise.all(
        answers_G.map((given) => {
          const answer = given === null ? null : normalizeAnswer(given)
          if (answer === null || answer === target) return Number(answer !== null)
          return ask(prompt({ question, silver: target, answer }), signal)
        }),
      )
    },
  }
}

/** `Yes.` and `no, because …` are clear; anything else is not. */
export function agreementOf(reply: string): number | null {
  const word = /^\W*(yes|no)\b/i.exec(reply)?.[1]?.toLowerCase()
  return word === undefined ? null : Number(word === 'yes')
}
