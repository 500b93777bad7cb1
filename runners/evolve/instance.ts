/** Names of actors on the bus: which machine and process they are in. */
import { hostname } from 'node:os'

/** Of every actor of this process; ids match [A-Za-z0-9_-]. */
export const PROCESS_NAME = `${hostname().replaceAll(/[^A-Za-z0-9_-]/g, '-')}-${process.pid}`

let instances = 0

/** `role.host-pid-n`, another one at each call. */
export const instanceOf = (role: string): string => `${role}.${PROCESS_NAME}-${++instances}`
