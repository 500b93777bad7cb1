// node summary.mjs REPORT.json EXIT_CODE: prints "N passed, N failed" of vitest's JSON report. EXIT_CODE is that of the
// whole test command: when it is not 0 although no test failed, a check before the tests did, and counts as one failure.
import { readFileSync } from 'node:fs'

const [file, exitCode] = process.argv.slice(2)
let passed = 0
let failed = 0
try {
  const report = JSON.parse(readFileSync(file, 'utf8'))
  passed = report.numPassedTests
  // A file that cannot be loaded has no tests of its own to fail.
  const broken = report.testResults.filter(
    (r) => r.status === 'failed' && !r.assertionResults.some((a) => a.status === 'failed'),
  )
  failed = report.numFailedTests + broken.length
} catch (error) {
  console.error(`no report of the tests: ${error.message}`)
}
if (exitCode !== '0' && failed === 0) failed = 1
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
