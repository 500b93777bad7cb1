/** Hosts as network namespaces of Linux, each with a cable (a veth pair) to a switch (a bridge) in a namespace of its own. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)
const ip = async (...args: string[]): Promise<void> => void (await run('ip', args))

let networks = 0

export interface Host {
  readonly name: string
  readonly address: string
  /** Runs a program on this host. */
  readonly within: readonly string[]
  /** Pulls its cable, or puts it back. */
  cable(state: 'up' | 'down'): Promise<void>
}

/** Why this machine cannot have such hosts; null when it can. */
export async function noHosts(): Promise<string | null> {
  if (process.platform !== 'linux') return 'network namespaces are a thing of Linux'
  const probe = `visplay-probe-${process.pid}`
  try {
    await ip('netns', 'add', probe)
    await ip('netns', 'del', probe)
    return null
  } catch (error) {
    return `no network namespaces here: ${(error as Error).message.trim().split('\n').at(-1)}`
  }
}

export class Network {
  readonly #id = `v${process.pid % 10_000}${++networks}`
  readonly #names: string[] = []
  #hosts = 0

  private constructor() {}

  static async make(): Promise<Network> {
    const network = new Network()
    await network.#namespace(network.#switch)
    await ip('-n', network.#switch, 'link', 'add', 'br0', 'type', 'bridge')
    await ip('-n', network.#switch, 'link', 'set', 'br0', 'up')
    return network
  }

  get #switch(): string {
    return `${this.#id}-switch`
  }

  async #namespace(name: string): Promise<void> {
    await ip('netns', 'add', name)
    this.#names.push(name)
    await ip('-n', name, 'link', 'set', 'lo', 'up')
  }

  async host(): Promise<Host> {
    const number = ++this.#hosts
    const name = `${this.#id}-h${number}`
    const address = `10.77.0.${number}`
    const port = `p${number}`
    await this.#namespace(name)
    await ip('-n', this.#switch, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
    await ip('-n', this.#switch, 'link', 'set', port, 'master', 'br0')
    await ip('-n', this.#switch, 'link', 'set', port, 'up')
    await ip('-n', name, 'addr', 'add', `${address}/24`, 'dev', 'eth0')
    await ip('-n', name, 'link', 'set', 'eth0', 'up')
    return {
      name,
      address,
      within: ['ip', 'netns', 'exec', name],
      // At the switch: the host itself does not notice, as with a cable that is cut far away.
      cable: (state) => ip('-n', this.#switch, 'link', 'set', port, state),
    }
  }

  async remove(): Promise<void> {
    for (const name of this.#names.splice(0).toReversed()) await ip('netns', 'del', name)
  }
}
