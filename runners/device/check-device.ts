/** Checks a device in a process of its own: when a driver ends it, that is a finding, and the checks go on in another. */
import { fork } from 'node:child_process'
import { on, once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Device } from '../../models/runtime/session.ts'
import { deviceChecks, FIRST } from './checks.ts'
import type { DeviceResult } from './finding.ts'
import { answerSchema, type Command } from './protocol.ts'

const SCRIPT = fileURLToPath(new URL('./check-process.mjs', import.meta.url))
/** Compiling the shaders of a graph in software takes seconds; nothing takes this long. */
const SILENCE_MS = 300_000

/** Runs the named checks, all by default. Without a device that computes at all there is one result. */
export async function* checkDevice(
  device: Device,
  names: readonly string[] = deviceChecks.map(({ name }) => name),
): AsyncGenerator<DeviceResult> {
  let left = [...new Set([FIRST, ...names])]
  while (left.length > 0) {
    const ended = new Set<string>()
    for await (const result of oneProcess({ device, checks: left }, ended)) {
      yield result
      if (result.check === FIRST && result.status === 'fail') return
    }
    left = left.filter((name) => !ended.has(name))
  }
}

/** Until all is checked or the process dies; `ended` gets the names of the checks that are over, the deadly one included. */
async function* oneProcess(command: Command, ended: Set<string>): AsyncGenerator<DeviceResult> {
  const child = fork(SCRIPT, { execArgv: [], stdio: ['ignore', 'ignore', 'ignore', 'ipc'] })
  const exit = once(child, 'exit') as Promise<[code: number | null, signal: NodeJS.Signals | null]>
  // Closed after the last message, whatever ends the process.
  const messages = on(child, 'message', { close: ['disconnect'] })
  const silence = setTimeout(() => child.kill('SIGKILL'), SILENCE_MS)
  let current = command.checks[0]!
  try {
    child.send(command)
    for await (const [message] of messages) {
      silence.refresh()
      const answer = answerSchema.parse(message)
      if (answer.said === 'found') yield answer.result
      else current = answer.check
      if (answer.said === 'ended') ended.add(current)
    }
    const [code, signal] = await exit
    const over = ended.size === command.checks.length
    if (code === 0 && over) return
    ended.add(current)
    yield {
      check: over ? 'end' : current,
      status: 'fail',
      detail: `ended the process (${signal ?? `exit code ${code}`})`,
    }
  } finally {
    clearTimeout(silence)
    child.kill('SIGKILL')
  }
}
