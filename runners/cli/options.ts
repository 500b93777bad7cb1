/** Options that several commands share. */
import { Command, InvalidArgumentError } from 'commander'

export interface CommonOptions {
  readonly json?: true
  readonly verbose?: true
}

/** A command with `--json`, `--verbose` and examples under its help; each example is `[arguments, what it does]`. */
export function newCommand(
  name: string,
  description: string,
  examples: readonly (readonly [string, string])[],
): Command {
  const width = Math.max(...examples.map(([args]) => args.length))
  const lines = examples.map(([args, what]) => `  $ npx visplay ${name} ${args.padEnd(width)}  ${what}`)
  return new Command(name)
    .description(description)
    .option('--json', 'JSON lines on stdout, everything else on stderr')
    .option('--verbose', 'log what happens, and the stack of an error, on stderr')
    .showSuggestionAfterError()
    .allowExcessArguments(false)
    .addHelpText('after', `\nExamples:\n${lines.join('\n')}`)
}

/** Parser of an integer option with bounds. */
export function integer(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (text.trim() !== '' && Number.isInteger(value) && value >= least && value <= most) return value
    throw new InvalidArgumentError(`It takes an integer ≥ ${least}${most < 2 ** 53 - 1 ? ` and ≤ ${most}` : ''}.`)
  }
}

/** Parser of a number option, at least `least`. */
export function atLeast(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (text.trim() !== '' && Number.isFinite(value) && value >= least) return value
    throw new InvalidArgumentError(`It takes a number ≥ ${least}.`)
  }
}

/** For options that may be given several times. */
export const collect = (value: string, before: readonly string[] = []): string[] => [...before, value]
