"""Loads what `visplay export` wrote in transformers and PEFT, and compares the models. Run by hand; no test needs it.

usage: python check_export.py BASE PEFT MERGED IMAGE          needs torch, transformers, peft, pillow
"""

import sys

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

base, peft, merged, picture = sys.argv[1:5]
load = lambda path: AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
processor = AutoProcessor.from_pretrained(merged)
content = [{"type": "image"}, {"type": "text", "text": "what is in the image? Answer with one or two words."}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=prompt, images=[Image.open(picture).convert("RGB")], return_tensors="pt")
with torch.no_grad():
    plain = load(base)(**inputs).logits
    adapted = PeftModel.from_pretrained(load(base), peft)(**inputs).logits
    whole = load(merged)(**inputs).logits
gap = (adapted - whole).abs().max().item()
change = (adapted - plain).abs().max().item()
logprob, token = torch.log_softmax(whole[0, -1], -1).max(-1)
print(f"peft - merged: {gap:.2e}   peft - base: {change:.2e}   first token {token.item()} at {logprob.item():.6f}")
sys.exit(0 if gap < 5e-4 < change else 1)
