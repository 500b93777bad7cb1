/**
 * The public API for actors of one's own, imported as `visplay/actor`. A file exports one definition as its default;
 * `visplay actor FILE` starts it beside the actors of a run, or in the place of those that do the same work.
 */
import type { AnyStateMachine } from 'xstate'
import type { LogRecord, Traced } from '../../bus/bus.ts'
import type { EventData, EventName, Task, TaskKind } from '../../bus/messages.ts'
import type { Ports, ReplyOf, RequestKind, ReplaceableKind, TaskRef } from '../ports.ts'
import type { JudgeInput, JudgeOutput } from '../rewards/recipe.ts'
import type { Similarity } from '../rewards/similarity.ts'

export type { EventData, EventName, JudgeInput, JudgeOutput, LogRecord, Similarity, Task, TaskKind, TaskRef }
export { llmAgreement } from '../llm/agreement.ts'
export { countVotes } from '../rewards/vote.ts'
export { normalizeAnswer } from '../rewards/normalize.ts'

/** What an actor may do besides what it is asked for. Results go where `produces` says, and nowhere else. */
export interface ActorContext {
  readonly run: string
  /** The configuration of the run, as `config.yaml` shows it. */
  readonly config: Readonly<Record<string, unknown>>
  readonly similarity: Similarity
  /** Aborts when the actor is told to stop or the task is taken from it. */
  readonly signal: AbortSignal
  /** Appends an event to the log, once per id: derive the id from the work, so that doing it twice changes nothing. */
  append<E extends EventName>(event: E, id: string, data: EventData<E>, parent?: Traced): Promise<void>
  /** Puts work on the queue, once per id. */
  publish<K extends TaskKind>(kind: K, id: string, task: Task<K>, parent?: Traced): Promise<void>
  /** Asks the model actors and waits for the reply. */
  request<K extends RequestKind>(kind: K, id: string, task: Task<K>): Promise<EventData<ReplyOf<K>>>
  /** The record of an id, or null. */
  find<E extends EventName>(event: E, id: string): Promise<LogRecord<E> | null>
  /** Waits for the record of an id. */
  await<E extends EventName>(event: E, id: string): Promise<LogRecord<E>>
  /** Verified bytes of a blob, such as an image. */
  blob(name: string): Promise<Uint8Array>
  putBlob(bytes: Uint8Array): Promise<string>
  /** One line on the terminal of this actor. */
  log(message: string): void
}

interface About {
  /** Its part on the bus: letters, digits, `_` and `-`. */
  readonly role: string
  /** Stamped on what it decides. */
  readonly name: string
  readonly version: string
}

type Produces = readonly (EventName | TaskKind)[]

/** Takes tasks of a kind; with one of a role of the run, it takes that role's place as long as it lives. */
export interface TaskActor<K extends TaskKind = TaskKind> extends About {
  readonly consumes: K
  readonly produces: Produces
  /** Returns when the result is in the log; what it throws brings the task back, at most five times. */
  handle(task: TaskRef<K>, context: ActorContext): Promise<void> | void
  /** Tasks at once; 64 if left out. */
  readonly credit?: number
}

/** Reads the log in order, from its beginning on. */
export interface LogActor<E extends EventName = EventName> extends About {
  readonly consumes: readonly E[]
  readonly produces: Produces
  /** What it throws is said, and the record is read again, at most five times. */
  handle(record: { [K in E]: LogRecord<K> }[E], context: ActorContext): Promise<void> | void
}

/** A machine of one's own: made with `setup()`, given the ports to provide its actors with; understands `stop`. */
export interface MachineActor extends About {
  readonly consumes: TaskKind | readonly EventName[]
  readonly produces: Produces
  machine(ports: Ports, context: ActorContext): AnyStateMachine
}

export interface JudgeContext {
  readonly similarity: Similarity
  /** Aborts when the judge is told to stop. */
  readonly signal: AbortSignal
  /** What the recipe of the run says of the same group. */
  base(): Promise<JudgeOutput>
  /** One line on the terminal of this judge. */
  log(message: string): void
}

/** Judges in the place of the Judge of the run. */
export interface JudgeDefinition extends Omit<About, 'role'> {
  judge(input: JudgeInput, context: JudgeContext): Promise<JudgeOutput>
}

export type OwnActor =
  | ({ readonly kind: 'task' } & TaskActor)
  | ({ readonly kind: 'log' } & LogActor)
  | ({ readonly kind: 'machine' } & MachineActor)
  | ({ readonly kind: 'judge'; readonly role: 'judge' } & JudgeDefinition)

/** The work that a definition takes over, if any. */
export type Replaces = ReplaceableKind | null

export function defineActor<K extends TaskKind>(definition: TaskActor<K>): OwnActor
export function defineActor<E extends EventName>(definition: LogActor<E>): OwnActor
export function defineActor(definition: MachineActor): OwnActor
export function defineActor(definition: TaskActor | LogActor | MachineActor): OwnActor {
  if ('machine' in definition) return { kind: 'machine', ...definition }
  return isTaskActor(definition) ? { kind: 'task', ...definition } : { kind: 'log', ...definition }
}

const isTaskActor = (definition: TaskActor | LogActor): definition is TaskActor =>
  typeof definition.consumes === 'string'

export const defineJudge = (definition: JudgeDefinition): OwnActor => ({ kind: 'judge', role: 'judge', ...definition })
