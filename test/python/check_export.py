"""Loads what `visplay export` wrote in transformers, PEFT and onnxruntime, and compares the models. Run by hand; no test needs it.

usage: python check_export.py BASE PEFT MERGED IMAGE     needs torch, transformers, peft, pillow
       python check_export.py --onnx MODEL ONNX IMAGE    needs torch, transformers, onnxruntime, pillow

MODEL is the checkpoint that the ONNX export is of, whole (`--format merged` of the same version).
"""

import os
import sys

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

TOLERANCE = 5e-4
QUESTION = "what is in the image? Answer with one or two words."


def load(path):
    return AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()


def prompt_of(folder, picture):
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=prompt, images=[Image.open(picture).convert("RGB")], return_tensors="pt")


def check_checkpoints(base, peft, merged, picture):
    from peft import PeftModel

    inputs = prompt_of(merged, picture)
    with torch.no_grad():
        plain = load(base)(**inputs).logits
        adapted = PeftModel.from_pretrained(load(base), peft)(**inputs).logits
        whole = load(merged)(**inputs).logits
    gap = (adapted - whole).abs().max().item()
    change = (adapted - plain).abs().max().item()
    logprob, token = torch.log_softmax(whole[0, -1], -1).max(-1)
    print(f"peft - merged: {gap:.2e}   peft - base: {change:.2e}   first token {token.item()} at {logprob.item():.6f}")
    return gap < TOLERANCE < change


class OnnxModel:
    """The three graphs of an export, run as its manifest says."""

    def __init__(self, folder):
        import onnxruntime

        open_graph = lambda name: onnxruntime.InferenceSession(os.path.join(folder, "onnx", name + ".onnx"))
        self.vision, self.embed, self.decoder = map(
            open_graph, ("vision_encoder", "embed_tokens", "decoder_model_merged")
        )
        self.past = {
            i.name: torch.zeros(1, i.shape[1], 0, i.shape[3]).numpy()
            for i in self.decoder.get_inputs()
            if i.name.startswith("past_key_values")
        }

    def features(self, inputs):
        names = [i.name for i in self.vision.get_inputs()]
        numpy = {name: inputs[name].numpy() for name in names}
        if "pixel_attention_mask" in numpy:
            numpy["pixel_attention_mask"] = numpy["pixel_attention_mask"].astype(bool)
        features = torch.from_numpy(self.vision.run(["image_features"], numpy)[0])
        return features.reshape(-1, features.shape[-1])

    def embeddings(self, ids):
        return torch.from_numpy(self.embed.run(["inputs_embeds"], {"input_ids": ids.numpy()})[0])

    def step(self, embeds, mask, positions, past):
        feeds = {"inputs_embeds": embeds.numpy(), "attention_mask": mask.numpy(), "position_ids": positions.numpy()}
        names = [o.name for o in self.decoder.get_outputs()]
        outputs = dict(zip(names, self.decoder.run(names, {**feeds, **past})))
        logits = torch.from_numpy(outputs.pop("logits"))
        return logits, {name.replace("present", "past_key_values"): value for name, value in outputs.items()}


def positions_of(model, inputs):
    """What transformers gives the text model: [1, T], or [3, 1, T] with M-RoPE, and the position of the next token."""
    ids = inputs["input_ids"]
    if not hasattr(model.model, "get_rope_index"):
        return torch.arange(ids.shape[1])[None], ids.shape[1]
    kinds = inputs.get("mm_token_type_ids")
    if kinds is None:
        kinds = (ids == model.config.image_token_id).int()
    positions, delta = model.model.get_rope_index(
        ids, mm_token_type_ids=kinds, image_grid_thw=inputs["image_grid_thw"], attention_mask=inputs["attention_mask"]
    )
    return positions, ids.shape[1] + int(delta)


def check_onnx(folder, export, picture, tokens=16):
    inputs = prompt_of(folder, picture)
    # The export's own settings must give the same inputs.
    own = prompt_of(export, picture)
    same = all(torch.equal(inputs[name], own[name]) for name in inputs)
    base, found = (vars(AutoConfig.from_pretrained(path).text_config) for path in (folder, export))
    same = same and all(found[name] == value for name, value in base.items() if value is not None)
    model, graphs = load(folder), OnnxModel(export)
    ids = inputs["input_ids"]
    with torch.no_grad():
        logits = model(**inputs).logits
        greedy = model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)[0, ids.shape[1] :]
    image_token = getattr(model.config, "image_token_id", None) or model.config.image_token_index
    embeds = graphs.embeddings(ids)
    embeds[ids == image_token] = graphs.features(inputs)
    positions, following = positions_of(model, inputs)
    found, past = graphs.step(embeds, inputs["attention_mask"], positions, graphs.past)
    gap = (found - logits).abs().max().item()
    mask = inputs["attention_mask"]
    agreed = 0
    for t, token in enumerate(greedy):
        row = found[0, -1].clone()
        ends = model.generation_config.eos_token_id
        row[ends if isinstance(ends, list) else [ends]] = -torch.inf  # min_new_tokens
        agreed += int(row.argmax() == token)
        mask = torch.cat([mask, torch.ones(1, 1, dtype=mask.dtype)], 1)
        position = torch.full((*positions.shape[:-1], 1), following + t)
        found, past = graphs.step(graphs.embeddings(token.reshape(1, 1)), mask, position, past)
    print(f"onnx - transformers: {gap:.2e}   greedy tokens that agree: {agreed} of {len(greedy)}   same settings: {same}")
    return same and gap < TOLERANCE and agreed == len(greedy)


if __name__ == "__main__":
    if sys.argv[1] == "--onnx":
        ok = check_onnx(*sys.argv[2:5])
    else:
        ok = check_checkpoints(*sys.argv[1:5])
    sys.exit(0 if ok else 1)
