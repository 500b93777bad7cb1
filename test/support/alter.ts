/** Small damage to golden files, for tests that it is noticed. */

type Random = () => number
/** Farther from x than any tolerance. */
const away = (x: number): number => x + 1 + Math.abs(x)
const below = (n: number, random: Random): number => Math.floor(random() * n)

/** One bit of a value: of a digit in JSON (so that it stays JSON), behind the header of tensors, anywhere else. */
export function flipBit(bytes: Buffer, random: Random): Buffer {
  const altered = Buffer.from(bytes)
  const text = bytes[0] === 0x7b && bytes.at(-1) === 0x0a
  if (text) {
    const digits = [...bytes.keys()].filter((i) => bytes[i]! >= 0x32 && bytes[i]! <= 0x39)
    const at = digits[below(digits.length, random)] ?? below(bytes.length, random)
    altered[at]! ^= 1
    return altered
  }
  const start = bytes.length > 8 && bytes[8] === 0x7b ? 8 + Number(bytes.readBigUInt64LE(0)) : 0
  altered[start + below(bytes.length - start, random)]! ^= 1 << below(8, random)
  return altered
}

export interface Altered {
  readonly bytes: Buffer
  /** For messages. */
  readonly what: string
}

/** Changes one number of a JSON file by more than any tolerance; paths that match `except` are left alone. */
export function alterJson(bytes: Buffer, random: Random, except: RegExp): Altered {
  const root = JSON.parse(bytes.toString()) as unknown
  const found: { owner: Record<string, number>; key: string; path: string }[] = []
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== 'object' || value === null) return
    for (const [key, inner] of Object.entries(value)) {
      const at = `${path}/${key}`
      if (typeof inner === 'number' && !except.test(at))
        found.push({ owner: value as Record<string, number>, key, path: at })
      else visit(inner, at)
    }
  }
  visit(root, '')
  const chosen = found[below(found.length, random)]
  if (!chosen) return alterText(root, bytes)
  const { owner, key, path } = chosen
  const before = owner[key]!
  owner[key] = Number.isInteger(before) ? before + 1 : away(before)
  return { bytes: Buffer.from(JSON.stringify(root)), what: `${path} ${before} → ${owner[key]}` }
}

/** A file without such a number gets an unknown field. */
function alterText(root: unknown, bytes: Buffer): Altered {
  const altered = { ...(root as Record<string, unknown>), unknown: bytes.length }
  return { bytes: Buffer.from(JSON.stringify(altered)), what: 'a field that nobody knows' }
}

interface StoredTensor {
  readonly dtype: keyof typeof SIZE
  readonly data_offsets: readonly [number, number]
}
const SIZE = { F32: 4, I64: 8, I32: 4, U8: 1 } as const

/** Changes one element of one tensor by more than any tolerance; names that match `except` are left alone. */
export function alterTensor(bytes: Buffer, random: Random, except: RegExp): Altered {
  const start = 8 + Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.subarray(8, start).toString()) as Record<string, StoredTensor>
  const names = Object.keys(header).filter((name) => name !== '__metadata__' && !except.test(name))
  const name = names[below(names.length, random)]!
  const { dtype, data_offsets: offsets } = header[name]!
  const index = below((offsets[1] - offsets[0]) / SIZE[dtype], random)
  const at = start + offsets[0] + index * SIZE[dtype]
  const altered = Buffer.from(bytes)
  if (dtype === 'F32') altered.writeFloatLE(away(bytes.readFloatLE(at)), at)
  else if (dtype === 'I64') altered.writeBigInt64LE(bytes.readBigInt64LE(at) + 1n, at)
  else if (dtype === 'I32') altered.writeInt32LE(bytes.readInt32LE(at) + 1, at)
  else altered[at] = bytes[at]! ^ 1
  return { bytes: altered, what: `${name}[${index}]` }
}
