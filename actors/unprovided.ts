/** Places of an exported machine that stay empty until the creator of its actor provides what belongs there. */
import { fromPromise, type PromiseActorLogic } from 'xstate'

/** Stands for a port. */
export function unprovided<Output, Input>(name: string): PromiseActorLogic<Output, Input> {
  return fromPromise<Output, Input>(() => Promise.reject(new Error(`the machine's port "${name}" is not provided`)))
}

/** The same for work without a result. */
export function unprovidedJob<Input>(name: string): PromiseActorLogic<void, Input> {
  const refuse: (args: { input: Input }) => Promise<void> = () =>
    Promise.reject(new Error(`the machine's port "${name}" is not provided`))
  return fromPromise(refuse)
}

/** Stands for an effect. */
export function effect<Params>(): (args: unknown, params: Params) => void {
  return () => {}
}
