/** What a process that checks a device is told, and what it says. */
import { z } from 'zod'
import { COMPUTING } from '../../configs/devices.ts'

const device = z.enum(COMPUTING)
const counts = z.record(z.string(), z.number())
const result = z.object({
  check: z.string(),
  status: z.enum(['ok', 'warn', 'fail']),
  detail: z.string(),
  maxError: z.number().optional(),
  placement: z.object({ device: z.number(), sizes: counts, fallbacks: counts, copies: counts }).optional(),
})

/** Checks by name, in this order. */
export const commandSchema = z.object({ device, checks: z.array(z.string()) })
export type Command = z.infer<typeof commandSchema>

export const answerSchema = z.discriminatedUnion('said', [
  z.object({ said: z.literal('begun'), check: z.string() }),
  z.object({ said: z.literal('found'), result }),
  z.object({ said: z.literal('ended'), check: z.string() }),
])
export type Answer = z.infer<typeof answerSchema>
