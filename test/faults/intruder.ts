/** Somebody on the bus of a run with every permission, who does what no actor would. */
import { jetstream, jetstreamManager, type JetStreamClient, type JetStreamManager } from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/nats-core'
import { Objm } from '@nats-io/obj'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Bus } from '../../bus/bus.ts'
import { blobFolder } from '../../bus/nats/blob-files.ts'
import { connectNats } from '../../bus/nats/connect.ts'
import { connectNet } from '../../bus/nats/net.ts'
import type { Net } from '../../bus/net.ts'
import { stores } from '../../bus/subjects.ts'
import { serverOf } from '../../runners/tap/server-of.ts'

export class Intruder {
  private constructor(
    readonly run: string,
    readonly bus: Bus,
    readonly js: JetStreamClient,
    readonly jsm: JetStreamManager,
    private readonly net: Net,
    private readonly connection: NatsConnection,
    private readonly files: string,
  ) {}

  static async open(folder: string, run: string): Promise<Intruder> {
    const { access } = await serverOf(folder, 'owner')
    const connection = await connectNats({ access, name: 'intruder' })
    const net = await connectNet(access, run)
    const jsm = await jetstreamManager(connection)
    const files = blobFolder(join(folder, 'nats'))
    return new Intruder(run, net.connect('intruder.1'), jetstream(connection), jsm, net, connection, files)
  }

  /** Any bytes on any subject of the run, as the server takes them or not. */
  async publish(subject: string, bytes: Uint8Array): Promise<'taken' | 'refused'> {
    return this.js.publish(`visplay.${this.run}.${subject}`, bytes).then(
      () => 'taken',
      () => 'refused',
    )
  }

  /** A live message, which nobody acknowledges. */
  say(subject: string, bytes: Uint8Array): void {
    this.connection.publish(`visplay.${this.run}.live.${subject}`, bytes)
  }

  /** Replaces what a blob holds. */
  async overwriteBlob(name: string, bytes: Uint8Array): Promise<void> {
    if (existsSync(this.files)) return writeFile(join(this.files, name), bytes)
    const objects = await new Objm(this.js).open(stores.blobs(this.run))
    await objects.putBlob({ name }, bytes)
  }

  async close(): Promise<void> {
    await this.net.close()
    await this.connection.close()
  }
}
