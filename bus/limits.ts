/** Numbers that every carrier keeps to. */

/** Deliveries of a task before it is dead. */
export const MAX_DELIVERIES = 5
/**
 * A task unanswered by a dead process comes back after this time. A live process renews its claims three times as often;
 * one that is held up for longer makes work be done twice, which changes nothing.
 */
export const ACK_WAIT_MS = 10_000
/** A task published again within this time is absorbed even if it was done meanwhile. */
export const DEDUPE_WINDOW_MS = 120_000
