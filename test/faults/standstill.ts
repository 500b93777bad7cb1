/** Something that had to happen did not. */
export class StandstillError extends Error {
  override name = 'StandstillError'
}
