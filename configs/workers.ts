/** The actors that any number of processes may run: they hold nothing that the bus does not have. */
export const WORKERS = ['model', 'judge', 'reasoner', 'questioner'] as const
export type Worker = (typeof WORKERS)[number]
