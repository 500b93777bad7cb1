/** Which NATS servers are good enough, and why others are not. */

/** The release that is installed when none is found. */
export const INSTALLED_VERSION = '2.15.1'
const MINIMUM: readonly [number, number] = [2, 11]

/** A NATS server that cannot be found, started or used; the message is one line with the remedy. */
export class NatsServerError extends Error {
  override name = 'NatsServerError'
}

/** Null when `version` (such as "2.15.1" or "v2.12.0-beta") will do, else the reason why not. */
export function refusal(version: string): string | null {
  const [, major, minor] = /^v?(\d+)\.(\d+)/.exec(version) ?? []
  if (major === undefined || minor === undefined) return `"${version}" is not a version`
  const tooOld = Number(major) < MINIMUM[0] || (Number(major) === MINIMUM[0] && Number(minor) < MINIMUM[1])
  if (!tooOld) return null
  return (
    `nats-server ${version} is older than ${MINIMUM.join('.')}: such servers ignore message lifetimes silently and ` +
    'leave acknowledged tasks behind after a crash'
  )
}
