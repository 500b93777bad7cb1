/** A process that takes one task, says so, and never answers: arguments are the server's URL, the run, the kind. */
import type { TaskKind } from '../../bus/messages.ts'
import { accessTo } from '../../bus/nats/access.ts'
import { connectNet } from '../../bus/nats/net.ts'

const [url, run, kind, ackWaitMs] = process.argv.slice(2)
const net = await connectNet(accessTo(url!), run!, { ackWaitMs: Number(ackWaitMs) })
const pull = net.connect('model.doomed').pull(kind as TaskKind, { credit: 1, signal: new AbortController().signal })
for await (const delivery of pull) process.stdout.write(`took ${delivery.id}\n`)
