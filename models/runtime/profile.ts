/** Where the nodes of sessions ran, from onnxruntime's own profile. */
import { mkdtempSync } from 'node:fs'
import { readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'

export interface TensorType {
  readonly dtype: string
  readonly dims: readonly number[]
}

/** A node of a graph after onnxruntime's optimisations, its copies between devices (`MemcpyToHost`, `MemcpyFromHost`) included. */
export interface PlacedNode {
  readonly graph: string
  readonly name: string
  readonly op: string
  /** onnxruntime's name of the execution provider, e.g. `CPUExecutionProvider`. */
  readonly provider: string
  /** Of its last run. */
  readonly inputs: readonly TensorType[]
  readonly outputs: readonly TensorType[]
}

/** `[{"float":[2,3]}, …]` */
const types = z
  .array(z.record(z.string(), z.array(z.number())))
  .transform((list) => list.flatMap((type) => Object.entries(type).map(([dtype, dims]) => ({ dtype, dims }))))
const nodeEvent = z.object({
  cat: z.literal('Node'),
  name: z.string(),
  args: z.object({
    op_name: z.string(),
    provider: z.string(),
    input_type_shape: types,
    output_type_shape: types,
  }),
})

/** Collects from the sessions that it is given to (`SessionOptions.profile`), each when it is released. */
export class Profile {
  readonly #nodes: PlacedNode[] = []

  /** Nodes that ran at least once. */
  get nodes(): readonly PlacedNode[] {
    return this.#nodes
  }

  /** For one session: where onnxruntime writes, and what to do when it has written. */
  start(): { readonly prefix: string; end(graph: string): Promise<void> } {
    const folder = mkdtempSync(join(tmpdir(), 'visplay-profile-'))
    const end = async (graph: string) => {
      for (const file of await readdir(folder)) this.#add(graph, JSON.parse(await readFile(join(folder, file), 'utf8')))
      await rm(folder, { recursive: true })
    }
    return { prefix: join(folder, 'session'), end }
  }

  #add(graph: string, events: unknown): void {
    const found = new Map<string, PlacedNode>()
    for (const event of z.array(z.unknown()).parse(events)) {
      const { success, data } = nodeEvent.safeParse(event)
      if (!success) continue
      const { op_name: op, provider, input_type_shape: inputs, output_type_shape: outputs } = data.args
      found.set(data.name, { graph, name: data.name, op, provider, inputs, outputs })
    }
    this.#nodes.push(...found.values())
  }
}
