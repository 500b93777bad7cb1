/** Names of everything on the bus. */
import { eventSchemas, taskSchemas } from '../../bus/messages.ts'

export const EVENT_NAMES = Object.keys(eventSchemas)
export const TASK_KINDS = Object.keys(taskSchemas)
