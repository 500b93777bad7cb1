/** Whether a run has ended, as a value on the bus: those who joined it leave then. */
import { z } from 'zod'
import type { Bus } from '../../bus/bus.ts'

const KEY = 'state'
const stateSchema = z.object({ ended: z.boolean() })

export const sayEnded = (bus: Bus, ended: boolean): Promise<void> => bus.putValue(KEY, { ended })

export async function hasEnded(bus: Bus): Promise<boolean> {
  const value = await bus.getValue(KEY)
  return value !== undefined && stateSchema.parse(value).ended
}
