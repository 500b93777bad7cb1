// A thread does not inherit the loader of its process: it registers its own before the first TypeScript file.
import { register } from 'tsx/esm/api'

register()
await import('./simulate-worker.ts')
