/**
 * The answers to a message of a pull consumer, and the count in its reply subject (NATS ADR-13 and ADR-15). The client
 * library offers them only on messages that its own consumers receive, whose credit ends when a message is read.
 */
import { nanos, type Msg, type NatsConnection } from '@nats-io/nats-core'
import type { Shared } from './shared.ts'
import type { Turns } from './turns.ts'

export class TaskMessage {
  readonly subject: string
  readonly bytes: Uint8Array
  /** Deliveries so far, this one included. */
  readonly deliveries: number
  readonly #connection: NatsConnection
  readonly #turns: Turns
  readonly #reply: string

  constructor(message: Msg, { connection, turns }: Pick<Shared, 'connection' | 'turns'>) {
    this.subject = message.subject
    this.bytes = message.data
    this.#connection = connection
    this.#turns = turns
    this.#reply = message.reply ?? ''
    // $JS.ACK.[domain.account.]stream.consumer.deliveries.…, with four tokens and maybe a random one after it.
    const tokens = this.#reply.split('.')
    this.deliveries = Number(tokens[tokens.length > 9 ? 6 : 4])
  }

  /** The task is done. */
  ack(): void {
    this.#answer('+ACK')
  }

  /** Deliver it again, after a delay. */
  nak(delayMs = 0): void {
    this.#answer(delayMs > 0 ? `-NAK ${JSON.stringify({ delay: nanos(delayMs) })}` : '-NAK')
  }

  /** It takes longer: the acknowledgement time begins anew. */
  working(): void {
    this.#answer('+WPI')
  }

  /** On a closed connection there is nobody to answer; the acknowledgement time brings the task back. */
  #answer(text: string): void {
    void this.#turns.next().then(() => {
      if (!this.#connection.isClosed()) this.#connection.publish(this.#reply, text)
    })
  }
}
