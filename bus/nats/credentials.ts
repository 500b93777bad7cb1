/** Secrets of a run, a file for each role in the folder of its server; made once, so that who joined can come back. */
import { randomBytes } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { BUS_ROLES, type BusRole } from './roles.ts'
import { NatsServerError } from './server-version.ts'

export type Credentials = Readonly<Record<BusRole, string>>

/** Holds one line, `role:secret`. */
export const credentialsFile = (storeDir: string, role: BusRole): string => join(storeDir, `${role}.creds`)

/** Throws NatsServerError for a file that is not of this kind. */
async function secretIn(file: string): Promise<readonly [role: string, secret: string]> {
  const text = await readFile(file, 'utf8')
  const [, role, secret] = /^(\w+):([0-9a-f]{32})\n?$/.exec(text) ?? []
  if (role === undefined || secret === undefined) {
    throw new NatsServerError(`${file} does not hold one line role:secret, as the files *.creds of a run do`)
  }
  return [role, secret]
}

const isMissing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT'

/** Those that there are, else new ones, for the eyes of this user only. */
export async function makeCredentials(storeDir: string): Promise<Credentials> {
  const entries = BUS_ROLES.map(async (role): Promise<[BusRole, string]> => {
    const file = credentialsFile(storeDir, role)
    try {
      return [role, (await secretIn(file))[1]]
    } catch (error) {
      if (!isMissing(error)) throw error
      const secret = randomBytes(16).toString('hex')
      await writeFile(file, `${role}:${secret}\n`, { mode: 0o600 })
      return [role, secret]
    }
  })
  return Object.fromEntries(await Promise.all(entries)) as unknown as Credentials
}

/** For a server that is open to everybody. */
export async function forgetCredentials(storeDir: string): Promise<void> {
  await Promise.all(BUS_ROLES.map((role) => rm(credentialsFile(storeDir, role), { force: true })))
}

/** The address with what a file of credentials holds. */
export async function withCredentialsOf(file: string, url: string): Promise<string> {
  const [role, secret] = await secretIn(file)
  const { protocol, host } = new URL(url)
  return `${protocol}//${role}:${secret}@${host}`
}

/** The address with the credentials of a role of the server of a run; as it is for one that is open. */
export async function withCredentials(url: string, role: BusRole, storeDir: string): Promise<string> {
  try {
    return await withCredentialsOf(credentialsFile(storeDir, role), url)
  } catch (error) {
    if (isMissing(error)) return url
    throw error
  }
}
