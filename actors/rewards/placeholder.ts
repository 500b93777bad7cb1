/** Image placeholders in generated text: they would be expanded into image tokens when the text is used in a prompt. */

const PLACEHOLDER =
  /<\|?\/?(?:image|img|im_|vision_|video|global-img|row_\d+_col_\d+|fake_token_around_image)[^<>\s]*\|?>|\[\/?img\]/i

/** The first image placeholder in a text (SmolVLM, Qwen-VL, LLaVA spellings), or null. */
export function imagePlaceholder(text: string): string | null {
  return PLACEHOLDER.exec(text)?.[0] ?? null
}
