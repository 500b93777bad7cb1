/** The tasks that one bus holds: keeps telling the server that they are being worked on, gives them back at the end. */
import type { TaskMessage } from './task-message.ts'
import type { Lifetime } from '../lifetime.ts'

export class HeldTasks {
  readonly #life: Lifetime
  readonly #tasks = new Map<TaskMessage, () => void>()
  readonly #timer: NodeJS.Timeout

  constructor(life: Lifetime, ackWaitMs: number) {
    this.#life = life
    this.#timer = setInterval(() => {
      for (const task of this.#tasks.keys()) task.working()
    }, ackWaitMs / 3).unref()
  }

  /** Holds `task` until the returned function settles it; `released` is called then. */
  add(task: TaskMessage, released: () => void): (how: () => void) => void {
    this.#tasks.set(task, released)
    return (how) => {
      this.#life.assertOpen()
      this.#tasks.delete(task)
      how()
      released()
    }
  }

  /** Gives every task back. */
  end(): void {
    clearInterval(this.#timer)
    for (const task of this.#tasks.keys()) task.nak()
    this.#tasks.clear()
  }
}
