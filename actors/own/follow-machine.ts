/** The machine of an actor that only reads the log. */
import { fromPromise, setup } from 'xstate'

export const followMachine = setup({
  types: { events: {} as { type: 'stop' } },
  actors: {
    /** Reads until it is stopped. */
    follow: fromPromise((): Promise<void> => Promise.resolve()),
  },
}).createMachine({
  id: 'follow',
  initial: 'following',
  invoke: { id: 'follow', src: 'follow' },
  on: { stop: '.stopped' },
  states: { following: {}, stopped: { type: 'final' } },
})
