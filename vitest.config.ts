import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/support/property-seed.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Sessions use both cores themselves; more test processes than cores only add noise.
    pool: 'forks',
    maxWorkers: 2,
  },
})
