/** A model of this process. */
import type { Tokenizer } from '../../models/io/tokenizer.ts'
import type { GenerateRequest, Model } from '../../models/model.ts'
import { ApiError } from './api-error.ts'
import type { Answered, Ask, Backend } from './backend.ts'

/** `name` is what clients call it. The model is disposed by `close`. */
export function localBackend(name: string, model: Model, tokenizer: Tokenizer): Backend {
  const together = async (asks: readonly Ask[]): Promise<readonly Answered[]> => {
    const listening = asks.some(({ onToken }) => onToken !== undefined)
    const generated = await model.generate(
      asks.map(requestOf),
      listening ? (token) => asks[token.request]!.onToken?.(token) : undefined,
    )
    return generated.map((one) => ({ model: name, generated: one }))
  }
  return {
    parallel: 1,
    models: () => Promise.resolve([name]),
    check: (wanted) => (wanted === name ? Promise.resolve() : Promise.reject(unknownModel(wanted, [name]))),
    async answer(asks) {
      try {
        return await together(asks)
      } catch (error) {
        if (asks.length === 1) return [error as Error]
        // One that cannot be answered must not harm the others.
        const alone: (Answered | Error)[] = []
        for (const ask of asks) alone.push((await together([ask]).catch((e: unknown) => [e as Error]))[0]!)
        return alone
      }
    },
    tokenText: (token) => tokenizer.decode([token], { skipSpecialTokens: false }),
    close: () => model.dispose(),
  }
}

/** The same request as that of `visplay generate`: the same seed gives the same text. */
const requestOf = ({ picture, prompt, samples, maxNewTokens, temperature, seed }: Ask): GenerateRequest => ({
  key: 'generate',
  image: picture && { key: picture.key, read: () => Promise.resolve(picture.bytes) },
  prompt,
  samples,
  maxNewTokens,
  temperature,
  seed,
})

export const unknownModel = (wanted: string, names: readonly string[]): ApiError =>
  new ApiError(404, 'model_not_found', `there is no model "${wanted}" here; there is ${names.join(', ')}`, 'model')
