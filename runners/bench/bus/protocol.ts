/** What the benchmark and its processes of model actors say to each other. */
import { z } from 'zod'

export const commandSchema = z.discriminatedUnion('do', [
  /** Start model actors on a run; answered when they listen. */
  z.object({
    do: z.literal('start'),
    url: z.string(),
    /** File of credentials. */
    creds: z.string(),
    run: z.string(),
    actors: z.number().int().min(0),
    batchMs: z.number().min(0),
    tokens: z.number().int().min(1),
    adapterBytes: z.number().int().min(0),
    /** Completions of a full batch. */
    rows: z.number().int().min(1),
    /** Requests that an actor holds at once; null = what actors of a run hold. */
    credit: z.number().int().min(1).nullable(),
  }),
  /** Stop them. */
  z.object({ do: z.literal('stop') }),
  /** Read so many bytes from a plain socket on this machine. */
  z.object({ do: z.literal('read'), port: z.number().int(), bytes: z.number().int() }),
])
export type Command = z.infer<typeof commandSchema>
export type StartCommand = Extract<Command, { do: 'start' }>

export const answerSchema = z.discriminatedUnion('said', [
  /** The process listens, or the last command is done. */
  z.object({ said: z.literal('done') }),
  z.object({ said: z.literal('failed'), message: z.string() }),
  z.object({ said: z.literal('warned'), message: z.string() }),
  /** An actor has other weights, at this time of the machine's clock in milliseconds. */
  z.object({ said: z.literal('swapped'), at: z.number() }),
])
export type Answer = z.infer<typeof answerSchema>

/** A clock that all processes of this machine share, in milliseconds. */
export const machineClock = (): number => Number(process.hrtime.bigint()) / 1e6
