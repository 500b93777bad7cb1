/** Every reward by name. To add one: a file that exports a `Reward`, and its line here. */
import { agreement } from './agreement.ts'
import { clusterShare } from './cluster-share.ts'
import { difficulty } from './difficulty.ts'
import { diversity } from './diversity.ts'
import { format } from './format.ts'
import type { Reward } from './reward.ts'

export const rewards: Readonly<Record<string, Reward>> = {
  agreement,
  'cluster-share': clusterShare,
  difficulty,
  diversity,
  format,
}
