/** Weights in the memory of a device: uploaded when they are first fed, kept until they are dropped. */
import { Graph } from '../graph/graph.ts'
import { floatsOf, type FrozenWeight, type FrozenWeights, isStored } from '../io/stored-tensor.ts'
import { type DeviceTensor, f32, isHost, type Tensors } from '../tensor.ts'
import { Session, type SessionOptions } from './session.ts'

export class ResidentWeights {
  readonly #uploaded = new Map<FrozenWeights, Promise<Readonly<Record<string, DeviceTensor>>>>()
  /** By rank. They live as long as the tensors that they made: the last session of a device takes its memory along. */
  readonly #uploaders = new Map<number, Promise<Session>>()

  constructor(private readonly options: SessionOptions) {}

  /** The same weights on the device; told apart by identity, so they must not be written to. */
  feeds(weights: FrozenWeights): Promise<Tensors> {
    let uploaded = this.#uploaded.get(weights)
    if (!uploaded) {
      uploaded = this.#upload(weights)
      this.#uploaded.set(weights, uploaded)
    }
    return uploaded
  }

  /** Gives the memory of weights back that will not be fed soon. */
  async drop(weights: FrozenWeights): Promise<void> {
    const uploading = this.#uploaded.get(weights)
    this.#uploaded.delete(weights)
    // An upload that failed was told to who asked for it.
    const uploaded = await uploading?.catch(() => null)
    for (const tensor of Object.values(uploaded ?? {})) tensor.dispose()
  }

  async dispose(): Promise<void> {
    await Promise.all([...this.#uploaded.keys()].map((weights) => this.drop(weights)))
    const sessions = await Promise.all(this.#uploaders.values())
    this.#uploaders.clear()
    await Promise.all(sessions.map((s) => s.release()))
  }

  async #upload(weights: FrozenWeights): Promise<Readonly<Record<string, DeviceTensor>>> {
    const uploaded: Record<string, DeviceTensor> = {}
    for (const [name, weight] of Object.entries(weights)) uploaded[name] = await this.#put(weight)
    return uploaded
  }

  async #put(weight: FrozenWeight): Promise<DeviceTensor> {
    const tensor = isStored(weight) ? f32(floatsOf(weight), weight.dims) : weight
    const { y } = await (await this.#uploader(tensor.dims.length)).runOn({ x: tensor })
    if (!y || isHost(y)) throw new Error(`the device ${this.options.device} does not keep tensors`)
    return y
  }

  #uploader(rank: number): Promise<Session> {
    let session = this.#uploaders.get(rank)
    if (!session) {
      const graph = new Graph()
      const x = graph.input('x', 'float32', [...'ABCDEFGH'.slice(0, rank)])
      session = Session.create(graph, { y: x }, { ...this.options, name: 'upload', resident: () => true })
      this.#uploaders.set(rank, session)
    }
    return session
  }
}
