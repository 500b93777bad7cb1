/** The pictures that golden cases refer to. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { CheckpointError } from '../../io/checkpoint-error.ts'
import { readJson } from '../../io/json-file.ts'

const size = z.strictObject({ width: z.int(), height: z.int(), mode: z.string() })
export const imagesSchema = z.record(
  z.string(),
  z.strictObject({
    kind: z.string(),
    stored: size,
    exif_orientation: z.int(),
    decoded: size,
    sha256: z.string(),
    decoded_png: z.string().optional(),
  }),
)
export type GoldenImage = z.infer<typeof imagesSchema>[string]

export class GoldenImages {
  private constructor(
    readonly dir: string,
    readonly images: Readonly<Record<string, GoldenImage>>,
  ) {}

  /** `dir` holds `images.json`. Throws CheckpointError when it is missing or malformed. */
  static async open(dir: string): Promise<GoldenImages> {
    return new GoldenImages(dir, await readJson(join(dir, 'images.json'), imagesSchema))
  }

  /** Bytes of the file itself. */
  original(path: string): Promise<Buffer> {
    return readFile(join(this.dir, this.#name(path)))
  }

  /** Bytes of the RGB picture that the reference saw: JPEG decoders differ, so that comparisons start behind them. */
  decoded(path: string): Promise<Buffer> {
    const name = this.#name(path)
    return readFile(join(this.dir, this.images[name]!.decoded_png ?? name))
  }

  hasAlpha(path: string): boolean {
    return this.images[this.#name(path)]!.stored.mode === 'RGBA'
  }

  #name(path: string): string {
    const name = path.replace(/^images\//, '')
    if (!(name in this.images))
      throw new CheckpointError(`does not list ${name}`, { file: join(this.dir, 'images.json') })
    return name
  }
}
