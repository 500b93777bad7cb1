/** `visplay serve`: an OpenAI-compatible server. */
import type { Command } from 'commander'
import { Option } from 'commander'
import { basename, join, resolve } from 'node:path'
import { homedir } from 'node:os'
import { DEVICES, type Device } from '../../configs/devices.ts'
import type { Closing } from '../evolve/closing.ts'
import type { Backend } from '../serve/backend.ts'
import { UsageError } from './fail.ts'
import { interruptible } from './interrupt.ts'
import { modelDir } from './model-dir.ts'
import { MODEL } from './model-options.ts'
import { integer, newCommand } from './options.ts'
import type { CommonOptions } from './options.ts'
import { createOutput, type Output } from './output.ts'
import { chosenRun } from './run-folder.ts'
import { accessOf, withServer, type ServerOptions } from './server-options.ts'

interface Options extends CommonOptions, ServerOptions {
  readonly model?: string
  readonly adapter?: string
  readonly run?: string
  readonly device: Device
  readonly threads: number
  readonly host: string
  readonly port: number
  readonly apiKey?: string
  readonly maxTokens: number
  readonly maxBody: number
  readonly fetchImages?: true
}

export function command(): Command {
  const about = [
    'Answers chat completions as the API of OpenAI does: POST /v1/chat/completions with text and pictures, streamed or',
    'not, GET /v1/models, GET /health. The model is loaded here (--model), or is that of a run that goes on (--run): its',
    'model actors answer between their own work, with the newest version (model RUN) or with one that is kept (RUN@0).',
  ].join('\n')
  const serving = newCommand('serve', about, [
    ['--model models/tiny', 'http://127.0.0.1:8000/v1'],
    ['--model HuggingFaceTB/SmolVLM-256M-Instruct --adapter runs/a/checkpoints/final', 'with an adapter'],
    ['--run my-run', 'the model of a run, while it learns'],
    ['--model models/tiny --host 0.0.0.0 --api-key KEY', 'for other machines'],
  ])
    .option('--model <dir>', MODEL)
    .option('--adapter <dir>', 'folder of a PEFT adapter for it')
    .addOption(new Option('--device <name>', 'where to compute').choices(DEVICES).default('auto'))
    .option('--threads <n>', 'CPU threads; 0 = the cores of the machine', integer(0), 0)
    .option('--run <run>', 'a run that goes on, by name or folder')
  return withServer(serving)
    .option('--host <address>', 'where to listen; 0.0.0.0 = every interface', '127.0.0.1')
    .option('--port <n>', '0 = a free one', integer(0, 65535), 8000)
    .addOption(new Option('--api-key <key>', 'what clients must send as Bearer').env('VISPLAY_API_KEY'))
    .option('--max-tokens <n>', 'longest answer, and that of who asks for none', integer(1, 16_384), 512)
    .option('--max-body <MB>', 'largest request', integer(1, 1024), 20)
    .option('--fetch-images', 'fetch pictures that are given by http(s) address')
    .action(run)
}

async function run(options: Options): Promise<void> {
  if ((options.model === undefined) === (options.run === undefined && options.nats === undefined))
    throw new UsageError('give either --model or --run')
  if (options.adapter !== undefined && options.model === undefined) throw new UsageError('--adapter needs --model')
  const output = createOutput(options.json === true)
  const [{ serve }, closings] = await Promise.all([import('../serve/serve.ts'), import('../evolve/closing.ts')])
  const closing = new closings.Closing()
  await interruptible(async (stopped) => {
    const ending = new AbortController()
    const signal = AbortSignal.any([stopped, ending.signal])
    try {
      const backend = closing.add(
        options.model === undefined
          ? await openFromRun(options, closing, output, ending)
          : await openFromModel(options, options.model),
        (b) => b.close(),
      )
      const { host, port, maxTokens, apiKey = null, maxBody, fetchImages = false } = options
      const [model] = await backend.models()
      await serve(backend, {
        host,
        port,
        maxTokens,
        apiKey,
        fetchImages,
        maxBodyBytes: maxBody * 1_000_000,
        signal,
        onError: (error) => output.note(`an answer failed: ${error.message}`),
        onListening: (url) => {
          output.data({ event: 'listening', url, model })
          output.text(`${model} answers at ${url}/v1; stop with Ctrl-C`)
        },
      })
    } finally {
      ending.abort()
      await closing.close()
    }
  })
}

async function openFromModel({ adapter, device, threads }: Options, model: string): Promise<Backend> {
  const [{ loadModel }, { loadTokenizer }, { localBackend }, { dir, hub }] = await Promise.all([
    import('../../models/vlm/load.ts'),
    import('../../models/io/tokenizer.ts'),
    import('../serve/local-backend.ts'),
    modelDir(model),
  ])
  const name = hub ?? basename(dir)
  const loaded = await loadModel(dir, { device, threads, ...(adapter && { adapter: resolve(adapter) }) })
  return localBackend(adapter ? `${name}+${basename(resolve(adapter))}` : name, loaded, await loadTokenizer(dir))
}

/** When the run ends, so does the server. */
async function openFromRun(
  options: Options,
  closing: Closing,
  output: Output,
  ending: AbortController,
): Promise<Backend> {
  const [{ openRun }, { liveServer }, { chooseRun }, access] = await Promise.all([
    import('../serve/open-backend.ts'),
    import('../actor/live-server.ts'),
    import('../join/choose-run.ts'),
    accessOf(options),
  ])
  const where = access
    ? { access, run: await chooseRun(access, options.run) }
    : await liveServer(chosenRun(options.run))
  const cache = join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'visplay', 'base')
  const { backend, ended } = await openRun({ ...where, cache }, closing, { onNote: output.note, signal: ending.signal })
  void ended.then(() => {
    if (ending.signal.aborted) return
    output.data({ event: 'done', run: where.run })
    output.text(`run ${where.run} has ended`)
    ending.abort()
  })
  return backend
}
