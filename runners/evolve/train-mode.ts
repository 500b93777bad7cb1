/** Which weights a run trains, from its configuration. */
import type { Config } from '../../configs/schema.ts'
import type { TrainMode } from '../../models/vlm/load-options.ts'

export function trainMode({ train, lora }: Config['model'], seed: number): TrainMode {
  switch (train) {
    case 'full':
      return { kind: 'full' }
    case 'vision':
      return { kind: 'full', part: 'vision' }
    case 'lora':
      return loraMode(lora, seed)
  }
}

function loraMode({ r, alpha, targets }: Config['model']['lora'], seed: number): TrainMode {
  const names = targets.map((name) => name.replaceAll(/[^\w]/g, '\\$&')).join('|')
  return { kind: 'lora', r, alpha, targets: `\\.(${names})$`, seed }
}
