#!/usr/bin/env node
// The package runs from its TypeScript sources: tsx compiles a file when it is first imported, and caches the result.
import { register } from 'tsx/esm/api'

register()
const { main } = await import('./cli/main.ts')
await main(process.argv.slice(2))
