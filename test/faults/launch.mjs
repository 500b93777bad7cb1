// The program with a misfortune of its own: MISFORTUNE in the environment says which (see misfortune.ts).
import { register } from 'tsx/esm/api'

register()
const { strike } = await import('./misfortune.ts')
strike(process.env.MISFORTUNE)
const { main } = await import('../../runners/cli/main.ts')
await main(process.argv.slice(2))
