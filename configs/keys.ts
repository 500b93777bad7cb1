/** The keys of the configuration as data, read off the schema: for suggestions, comments and path handling. */
import { z } from 'zod'
import { PATH_MARK, configSchema } from './schema.ts'

interface JsonNode {
  readonly description?: string
  readonly type?: string
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly exclusiveMaximum?: number
  readonly items?: JsonNode | boolean
  readonly prefixItems?: readonly JsonNode[]
  readonly anyOf?: readonly JsonNode[]
  readonly properties?: Readonly<Record<string, JsonNode>>
  readonly additionalProperties?: JsonNode | boolean
  readonly [PATH_MARK]?: boolean
}

export interface ConfigKey {
  /** Dotted, for example `optimizer.lr`. */
  readonly key: string
  readonly description: string
  /** In words, for error messages: `"full" or "lora"`, `an integer ≥ 1`. */
  readonly allowed: string
  readonly isPath: boolean
  /** Values that are no paths where others are. */
  readonly names: readonly unknown[]
  /** True for a section that holds other keys. */
  readonly isSection: boolean
}

/** Every key of the configuration, sections before what they hold. */
export function configKeys(): ReadonlyMap<string, ConfigKey> {
  cached ??= new Map(walk(z.toJSONSchema(configSchema, { io: 'input' }) as JsonNode, '').map((k) => [k.key, k]))
  return cached
}
let cached: ReadonlyMap<string, ConfigKey> | null = null

function walk(node: JsonNode, prefix: string): ConfigKey[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, child]) => {
    const key = prefix === '' ? name : `${prefix}.${name}`
    const self: ConfigKey = {
      key,
      description: child.description ?? '',
      allowed: allowed(child),
      isPath: branches(child).some((b) => b[PATH_MARK] === true),
      names: branches(child).flatMap((b) => b.enum ?? []),
      isSection: child.properties !== undefined,
    }
    return [self, ...walk(child, key)]
  })
}

const branches = (node: JsonNode): readonly JsonNode[] => node.anyOf ?? [node]

function allowed(node: JsonNode): string {
  if (node.anyOf) return node.anyOf.map(allowed).join(' or ')
  if (node.enum) return orList(node.enum.map((v) => JSON.stringify(v)))
  if (node.prefixItems) return `a list of ${node.prefixItems.length}: ${node.prefixItems.map(allowed).join('; ')}`
  if (node.type === 'array')
    return `a list of ${typeof node.items === 'object' ? `${allowed(node.items).replace(/^an? /, '')}s` : 'values'}`
  if (node.type === 'integer' || node.type === 'number')
    return `${node.type === 'integer' ? 'an integer' : 'a number'}${range(node)}`
  if (node.type === 'boolean') return 'true or false'
  if (node.type === 'object') return 'a section of keys'
  return node.type === 'string' ? 'a text' : (node.type ?? 'anything')
}

const orList = (words: readonly string[]): string =>
  words.length < 2 ? words.join() : `${words.slice(0, -1).join(', ')} or ${words.at(-1)!}`

function range(node: JsonNode): string {
  const bounds = [
    node.exclusiveMinimum === undefined ? null : `> ${node.exclusiveMinimum}`,
    node.minimum === undefined || node.minimum === Number.MIN_SAFE_INTEGER ? null : `≥ ${node.minimum}`,
    node.exclusiveMaximum === undefined ? null : `< ${node.exclusiveMaximum}`,
    node.maximum === undefined || node.maximum === Number.MAX_SAFE_INTEGER ? null : `≤ ${node.maximum}`,
  ].filter((b) => b !== null)
  return bounds.length === 0 ? '' : ` ${bounds.join(' and ')}`
}
