/** A process of the benchmark: model actors of a run over one connection, each with a simulated device. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { modelActor } from '../../../actors/model-actor.ts'
import { Ports } from '../../../actors/ports.ts'
import { accessWith } from '../../../bus/nats/access.ts'
import { connectNet } from '../../../bus/nats/net.ts'
import { Closing } from '../../evolve/closing.ts'
import { instanceOf } from '../../evolve/instance.ts'
import { adapterOf } from './adapter.ts'
import { commandSchema, machineClock, type Answer, type Command, type StartCommand } from './protocol.ts'
import { SimulatedDevice } from './simulated-device.ts'

let running = new Closing()

const say = (answer: Answer): void => void process.send?.(answer)

async function start({ url, creds, run, actors, adapterBytes, rows, credit, ...device }: StartCommand): Promise<void> {
  const net = running.add(await connectNet(await accessWith(url, { creds }), run), (n) => n.close())
  for (let i = 0; i < actors; i++) {
    const onWarning = (message: string, error: unknown) =>
      say({ said: 'warned', message: `${message}: ${String(error)}` })
    const ports = new Ports(net.connect(instanceOf('model')), { onWarning })
    const onLoad = () => say({ said: 'swapped', at: machineClock() })
    const model = new SimulatedDevice({ ...device, weights: adapterOf(adapterBytes, 0), onLoad })
    running.add(modelActor(ports, { model, maxRows: rows, ...(credit !== null && { credit }) }), (actor) =>
      actor.stop(),
    )
  }
}

async function stop(): Promise<void> {
  const ended = running
  running = new Closing()
  await ended.close()
}

async function read(port: number, bytes: number): Promise<void> {
  const socket = connect({ host: '127.0.0.1', port })
  let left = bytes
  socket.on('data', (data: Buffer) => {
    left -= data.length
    if (left <= 0) socket.destroy()
  })
  await once(socket, 'close')
  if (left > 0) throw new Error(`the socket ended ${left} bytes too early`)
}

function obey(command: Command): Promise<void> {
  switch (command.do) {
    case 'start':
      return start(command)
    case 'stop':
      return stop()
    case 'read':
      return read(command.port, command.bytes)
  }
}

process.on('message', (message) => {
  obey(commandSchema.parse(message)).then(
    () => say({ said: 'done' }),
    (error: unknown) => say({ said: 'failed', message: String(error) }),
  )
})
// The benchmark is gone, or needs this process no more. Ctrl-C reaches both: the benchmark decides.
process.on('disconnect', () => process.exit())
process.on('SIGINT', () => undefined)
say({ said: 'done' })
