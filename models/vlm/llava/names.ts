/** Names of the weights of LLaVA 1.5 and LLaVA-NeXT. */

const PARTS = /^(?:language_model|vision_tower|multi_modal_projector)\.|^image_newline$/

/**
 * Name in transformers 5 of a tensor of a checkpoint file. Files call the text model `language_model.model.*` and its head
 * `language_model.lm_head`; hub files have `vision_tower.vision_model.*`, newer ones leave out the second part.
 */
export function canonicalName(stored: string): string {
  const bare = stored.replace(/^model\.(?=language_model\.|vision_tower\.|multi_modal_projector\.|image_newline$)/, '')
  if (bare.startsWith('language_model.lm_head.')) return bare.slice('language_model.'.length)
  if (!PARTS.test(bare)) return stored
  const text = bare.replace(/^language_model\.model\./, 'language_model.')
  return `model.${text.replace(/^vision_tower\.vision_model\./, 'vision_tower.')}`
}

/** Weights that image features depend on. */
export const visionWeights = /^model\.(?:(?:vision_tower|multi_modal_projector)\.|image_newline$)/
