/** A model as ONNX files for any language: the layout of optimum's and transformers.js' exports. */
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { toOnnx } from '../../models/graph/onnx.ts'
import { weightBytes, writeOnnx } from '../../models/graph/onnx-files.ts'
import { openCheckpoint } from '../../models/io/safetensors.ts'
import { decoderGraph, embedTokensGraph, type ExportGraph, visionEncoderGraph } from '../../models/vlm/export-graphs.ts'
import { type GraphContext, sizesOnly } from '../../models/vlm/graphs.ts'
import { familyOf } from '../../models/vlm/registry.ts'
import { type Trained, WholeWeights } from '../../models/vlm/whole-weights.ts'
import { copySettings } from '../evolve/load.ts'
import { writeWebSettings } from './web-settings.ts'

const FOLDER = 'onnx'
const MANIFEST = 'manifest.json'
const GRAPHS: Readonly<Record<string, (context: GraphContext) => ExportGraph>> = {
  vision_encoder: visionEncoderGraph,
  embed_tokens: embedTokensGraph,
  decoder_model_merged: decoderGraph,
}

export interface OnnxExportOptions {
  readonly signal: AbortSignal
  /** Share of the bytes that are written, from 0 to 1. */
  readonly onProgress?: (share: number) => void
}

/**
 * Writes `onnx/` with three graphs in float32 and `manifest.json`, which says what goes in and comes out, beside the
 * settings of the checkpoint. The folder appears complete or not at all.
 *
 * @param base checkpoint folder of any family.
 * @throws CheckpointError when the checkpoint or the adapter is not what it should be.
 */
export async function writeOnnxExport(
  to: string,
  base: string,
  trained: Trained,
  { signal, onProgress = () => undefined }: OnnxExportOptions,
): Promise<{ bytes: number }> {
  const family = await familyOf(base)
  const { architecture } = await family.open(base)
  const context = sizesOnly(architecture)
  const graphs = Object.entries(GRAPHS).map(([name, build]) => ({ name, ...build(context) }))
  const total = graphs.reduce((n, graph) => n + weightBytes(graph), 0)
  let done = 0
  const onBytes = (bytes: number): void => {
    signal.throwIfAborted()
    onProgress(Math.min(1, (done += bytes) / total))
  }
  const partial = `${to}.partial`
  await rm(partial, { recursive: true, force: true })
  await mkdir(join(partial, FOLDER), { recursive: true })
  const checkpoint = await openCheckpoint(base)
  try {
    const weights = new WholeWeights(family, architecture.weights, checkpoint, trained)
    await copySettings(base, partial)
    const files: Record<string, number> = {}
    let bytes = 0
    for (const graph of graphs) {
      const written = await writeOnnx(join(partial, FOLDER), graph.name, graph, weights, onBytes)
      files[`${graph.name}.onnx`] = written.data.length
      bytes += written.bytes
    }
    await writeWebSettings(partial, files)
    await writeFile(
      join(partial, FOLDER, MANIFEST),
      json(manifest(architecture.family, architecture.imageTokenId, graphs)),
    )
    await rm(to, { recursive: true, force: true })
    await rename(partial, to)
    return { bytes }
  } catch (error) {
    await rm(partial, { recursive: true, force: true })
    throw error
  } finally {
    await checkpoint.close()
  }
}

function manifest(family: string, imageToken: number, graphs: readonly (ExportGraph & { name: string })[]) {
  return {
    family,
    image_token_id: imageToken,
    order: [
      'vision_encoder once for the pictures of a prompt, embed_tokens for its tokens',
      'image_features take the places of the embeddings of image_token_id, in their order',
      'decoder_model_merged over the whole prompt with empty past_key_values, then for every new token over the presents',
    ],
    graphs: Object.fromEntries(graphs.map((graph) => [`${graph.name}.onnx`, describe(graph)])),
  }
}

/** Inputs and outputs with dtypes, shapes and meanings; the caches of all layers are described once. */
function describe({ graph, outputs, about }: ExportGraph) {
  const needed = new Set(toOnnx(graph, outputs, { placement: () => PLACED }).inputs)
  const entry = (name: string, { dtype, dims }: { dtype: string; dims: readonly (number | string)[] }) => {
    const meaning = about[name] ?? about[name.split('.')[0]!]
    return [name, { dtype, shape: dims, ...(meaning !== undefined && { meaning }) }] as const
  }
  const inputs = graph.sources.flatMap((s) => (needed.has(s.name) ? [entry(s.name, s.value)] : []))
  return {
    inputs: Object.fromEntries(inputs),
    outputs: Object.fromEntries(Object.entries(outputs).map(([name, value]) => entry(name, value))),
  }
}

const PLACED = { location: '', offset: 0, length: 0 }

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`
