/**
 * Keys of a run, a file for each role in the folder of its server; made once, so that who joined can come back. The server
 * itself knows only the public halves (Ed25519 NKeys): it asks for a signature, and no secret travels.
 */
import { nkeys } from '@nats-io/nats-core'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { BUS_ROLES, type BusRole } from './roles.ts'
import { NatsServerError } from './server-version.ts'

/** What a server knows of its users. */
export type PublicKeys = Readonly<Record<BusRole, string>>

/** Holds one line, `role:seed`. */
export const credentialsFile = (storeDir: string, role: BusRole): string => join(storeDir, `${role}.creds`)

const lineSchema = z.tuple([z.enum(BUS_ROLES), z.string().regex(/^SU[A-Z2-7]{56}$/)])

export interface RoleKey {
  readonly role: BusRole
  readonly seed: Uint8Array
  /** Begins with U. */
  readonly publicKey: string
}

/** Throws NatsServerError for a text that is not of this kind; `file` is where it came from. */
export function parseRoleKey(text: string, file: string): RoleKey {
  const line = text.trim()
  if (isPassword(line)) {
    throw new NatsServerError(
      `${file} holds a password of an earlier release: resume the run with this one, which makes keys instead, and copy ` +
        'the new file from nats/ in its folder',
    )
  }
  const parsed = lineSchema.safeParse(line.split(':'))
  if (parsed.success) {
    const [role, text] = parsed.data
    const seed = Buffer.from(text)
    try {
      return { role, seed, publicKey: nkeys.fromSeed(seed).getPublicKey() }
    } catch (cause) {
      throw new NatsServerError(`${file} is damaged: its key has a wrong checksum; copy it again`, { cause })
    }
  }
  throw new NatsServerError(
    `${file} holds no credentials: neither one line role:seed, as the files nats/*.creds of a run do, nor a JWT and a seed`,
  )
}

const isPassword = (line: string): boolean => /^\w+:[0-9a-f]{32}$/.test(line)

const isMissing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT'

/**
 * Public keys of those that there are, else of new ones, for the eyes of this user only. Passwords of an earlier release
 * are replaced, and `onNote` is told so.
 */
export async function makeCredentials(storeDir: string, onNote: (note: string) => void): Promise<PublicKeys> {
  let replaced = false
  const entries = BUS_ROLES.map(async (role): Promise<[BusRole, string]> => {
    const file = credentialsFile(storeDir, role)
    const text = await readFile(file, 'utf8').catch((error: unknown) => {
      if (isMissing(error)) return null
      throw error
    })
    const old = text !== null && isPassword(text.trim())
    if (text !== null && !old) return [role, parseRoleKey(text, file).publicKey]
    replaced ||= old
    const pair = nkeys.createUser()
    // Written anew: a mode is given only to a file that is made.
    await rm(file, { force: true })
    await writeFile(file, `${role}:${Buffer.from(pair.getSeed()).toString()}\n`, { mode: 0o600 })
    return [role, pair.getPublicKey()]
  })
  const keys = Object.fromEntries(await Promise.all(entries)) as unknown as PublicKeys
  if (replaced) {
    onNote(`the passwords of this run are now keys: who joined before needs the new files *.creds from ${storeDir}`)
  }
  return keys
}

/** For a server that is open to everybody. */
export async function forgetCredentials(storeDir: string): Promise<void> {
  await Promise.all(BUS_ROLES.map((role) => rm(credentialsFile(storeDir, role), { force: true })))
}
