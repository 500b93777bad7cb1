/** `visplay.log` in the folder of a run: everything that the terminal was told, with times, as JSON lines. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import pino from 'pino'
import type { EvolveEvent } from './events.ts'

export interface RunLog {
  write(event: EvolveEvent): void
}

/** The file is opened when the folder is there, because a run that cannot start leaves nothing. `verbose`: stderr too. */
export function createRunLog(out: string, verbose: boolean): RunLog {
  const waiting: EvolveEvent[] = []
  const log = verbose ? loggerTo([process.stderr]) : null
  let file: pino.Logger | null = null
  return {
    write(event) {
      if (log) put(log, event)
      waiting.push(event)
      if (file === null && existsSync(out)) {
        // Synchronous, so that a crash loses nothing.
        file = loggerTo([pino.destination({ dest: join(out, 'visplay.log'), sync: true })])
      }
      if (file) for (const late of waiting.splice(0)) put(file, late)
    },
  }
}

function loggerTo(streams: pino.DestinationStream[]): pino.Logger {
  return pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.multistream(streams))
}

function put(log: pino.Logger, event: EvolveEvent): void {
  const { event: name, ...data } = event
  if (name === 'alarm' || name === 'note') log.warn(data, name)
  else log.info(data, name)
}
