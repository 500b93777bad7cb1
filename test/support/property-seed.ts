/** Property tests see the same cases at every run; `PROPERTY_SEED=random` or a number explores others. */
import fc from 'fast-check'

const wanted = process.env['PROPERTY_SEED'] ?? '1'
if (wanted !== 'random') fc.configureGlobal({ seed: Number(wanted) })
