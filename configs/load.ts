/**
 * Builds the configuration of a run: defaults ← preset ← `--config FILE` ← `--set a.b=c` ← flags. Every layer is a
 * difference; objects merge, lists and scalars replace. Relative paths count from where they were written: the package
 * for a preset, the file for a `--config` file, the current folder for the command line.
 */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { homedir } from 'node:os'
import { parse as parseYaml, Document, isMap, isPair, isScalar, isSeq, visit } from 'yaml'
import { configKeys } from './keys.ts'
import { ConfigError, explainIssue } from './errors.ts'
import { configSchema } from './schema.ts'
import type { Config } from './schema.ts'
import { suggestion } from './suggest.ts'

/** A difference to the defaults, and where it came from. */
export interface Layer {
  /** For messages: `--set optimizer.lr=x`, `the file a.yaml`, `preset tiny`. */
  readonly source: string
  /** Folder that relative paths count from. */
  readonly base: string
  readonly values: Tree
}
export interface Tree {
  readonly [key: string]: unknown
}

export interface LoadOptions {
  /** A name in configs/; null = defaults only; undefined = chosen from the model. */
  readonly preset?: string | null
  readonly file?: string | undefined
  /** A whole configuration that the layers differ from, instead of the defaults. */
  readonly over?: Config
  /** `a.b=c` each, `c` in YAML. */
  readonly sets?: readonly string[]
  /** Dotted key → value, from named flags; undefined values are skipped. `flag` names them in messages. */
  readonly flags?: readonly { readonly key: string; readonly value: unknown; readonly flag: string }[]
  readonly cwd?: string
}

export const PACKAGE_ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..')
export const PRESETS = ['tiny', 'smolvlm'] as const

/** The whole, valid configuration. Throws ConfigError, one line that names the key, the value and what is allowed. */
export function loadConfig(options: LoadOptions = {}): Config {
  const cwd = options.cwd ?? process.cwd()
  const layers: Layer[] = []
  if (options.file !== undefined) layers.push(fileLayer(resolve(cwd, expandHome(options.file))))
  for (const text of options.sets ?? []) layers.push(setLayer(text, cwd))
  for (const { key, value, flag } of options.flags ?? []) {
    if (value !== undefined) layers.push({ source: flag, base: cwd, values: nest(key.split('.'), value) })
  }
  const preset = options.preset === undefined ? presetFor(layers) : options.preset
  if (preset !== null) layers.unshift(presetLayer(preset))
  if (options.over) layers.unshift({ source: 'the configuration of the run', base: cwd, values: options.over })
  return parseLayers(layers)
}

/** Reads a whole `config.yaml` written by `configToYaml`. */
export function readConfig(file: string): Config {
  return parseLayers([fileLayer(file)])
}

/** The whole configuration as YAML, every key with its meaning as a comment. */
export function configToYaml(config: Config): string {
  const document = new Document(config)
  visit(document, {
    Pair(_, pair, path) {
      if (!isScalar(pair.key)) return
      const parents = path.filter(isPair).map((p) => (isScalar(p.key) ? String(p.key.value) : ''))
      const key = configKeys().get([...parents, String(pair.key.value)].join('.'))
      if (key === undefined || key.description === '') return
      if (isMap(pair.value) && key.isSection) {
        pair.key.commentBefore = ` ${key.description}`
        if (parents.length === 0) pair.key.spaceBefore = true
      } else pair.key.commentBefore = ` ${key.description} [${key.allowed}]`
      if (isSeq(pair.value)) pair.value.flow = true
    },
  })
  return document.toString({ lineWidth: 0 })
}

/**
 * A checkpoint may say which preset suits it in `visplay.json` (`{"preset": "tiny"}`), because prompts and lengths
 * belong to a model; other checkpoints get the preset for published models.
 */
function presetFor(layers: readonly Layer[]): string {
  const dir = layers.map((l) => get(resolvePaths(l), 'model.dir')).findLast((d) => typeof d === 'string')
  if (dir === undefined) return 'tiny'
  const file = join(dir as string, 'visplay.json')
  if (!existsSync(file)) return 'smolvlm'
  const content: unknown = parseYaml(readFileSync(file, 'utf8'))
  const preset = isTree(content) ? content['preset'] : undefined
  if (typeof preset !== 'string') throw new ConfigError(`${file} does not name a preset; write {"preset": "tiny"}`)
  return preset
}

function presetLayer(name: string): Layer {
  const file = join(PACKAGE_ROOT, 'configs', `${name}.yaml`)
  if (!(PRESETS as readonly string[]).includes(name)) {
    throw new ConfigError(`unknown preset "${name}"${suggestion(name, PRESETS)}; there are ${PRESETS.join(', ')}`)
  }
  return { ...fileLayer(file), source: `preset ${name}`, base: PACKAGE_ROOT }
}

function fileLayer(file: string): Layer {
  const text = readText(file)
  let values: unknown
  try {
    values = parseYaml(text) ?? {}
  } catch (cause) {
    throw new ConfigError(`${file} is not valid YAML: ${(cause as Error).message.split('\n')[0]}`, { cause })
  }
  if (!isTree(values)) throw new ConfigError(`${file} must hold "key: value" lines`)
  return { source: `the file ${file}`, base: dirname(file), values }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'does not exist' : (cause as Error).message
    throw new ConfigError(`the configuration file ${file} ${why}`, { cause })
  }
}

function setLayer(text: string, base: string): Layer {
  const at = text.indexOf('=')
  if (at < 1) throw new ConfigError(`--set ${text}: write --set key=value, for example --set optimizer.lr=1e-5`)
  const source = `--set ${text}`
  try {
    return { source, base, values: nest(text.slice(0, at).trim().split('.'), parseYaml(text.slice(at + 1)) as unknown) }
  } catch (cause) {
    throw new ConfigError(`${source}: the value is not valid YAML`, { cause })
  }
}

function parseLayers(layers: readonly Layer[]): Config {
  const resolved = layers.map((layer) => ({ ...layer, values: resolvePaths(layer) }))
  const merged = resolved.reduce<Tree>((all, layer) => merge(all, layer.values), {})
  const result = configSchema.safeParse(merged)
  if (result.success) return result.data
  const source = (key: string) => resolved.findLast((l) => get(l.values, key) !== undefined)?.source
  throw new ConfigError(explainIssue(result.error.issues[0]!, (key) => get(merged, key), source))
}

/** The layer's values with its relative paths made absolute; a leading `~/` is the home folder. */
function resolvePaths(layer: Layer): Tree {
  let values = layer.values
  for (const { key, isPath, names } of configKeys().values()) {
    const value = isPath ? get(values, key) : undefined
    if (typeof value === 'string' && value !== '' && !names.includes(value)) {
      values = merge(values, nest(key.split('.'), resolve(layer.base, expandHome(value))))
    }
  }
  return values
}

const expandHome = (path: string): string =>
  path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path

const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value)

function merge(a: Tree, b: Tree): Tree {
  const out: Record<string, unknown> = { ...a }
  for (const [key, value] of Object.entries(b)) {
    const old = out[key]
    out[key] = isTree(old) && isTree(value) ? merge(old, value) : value
  }
  return out
}

function nest(path: readonly string[], value: unknown): Tree {
  return path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as Tree
}

function get(tree: Tree, key: string): unknown {
  return key === '' ? tree : key.split('.').reduce<unknown>((t, k) => (isTree(t) ? t[k] : undefined), tree)
}
