/** A run cannot be joined; the message says why and what to do. */
export class JoinError extends Error {
  override name = 'JoinError'
}
