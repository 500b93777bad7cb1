/** Parts of the benchmark of the bus. */
export const BUS_PARTS = ['scale', 'broadcast', 'overhead', 'tap'] as const
export type BusPart = (typeof BUS_PARTS)[number]
