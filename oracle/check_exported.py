"""Evaluates a text with `transformers` and `tokenizers` alone, on the files of a run folder.

Run: python oracle/check_exported.py RUN_FOLDER TEXT_FILE
The folder needs config.json, model.safetensors and tokenizer.json. The numbers are those of `cupola eval` on the same
text, counted the same way: the first token is predicted from the end-of-text token where the tokenizer has one, windows
of the context length overlap by half, and each token is counted once. They agree if the export is right.
"""

import argparse
import math
from pathlib import Path

import tokenizers
import torch
import torch.nn.functional as F
import transformers

END_OF_TEXT = "<|endoftext|>"
IGNORED = -100


def load(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: names for kind, names in report.items() if names}
    assert not wrong, f"{folder}: transformers loads it only in part: {wrong}"
    return model.eval(), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def windows(ids, context_length):
    """Inputs and targets of overlapping windows, as eval::text counts them."""
    stride = -(-context_length // 2)
    n_seen = 0
    for first in range(0, len(ids) - 1, stride):
        inputs = ids[first : min(first + context_length, len(ids) - 1)]
        targets = ids[first + 1 : first + 1 + len(inputs)]
        yield inputs, [IGNORED] * n_seen + targets[n_seen:]
        if first + context_length >= len(ids) - 1:
            return
        n_seen = context_length - stride


def evaluate(model, tokenizer, text):
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = ([] if end is None else [end]) + tokenizer.encode(text.decode("utf-8"), add_special_tokens=False).ids
    nats = 0.0
    with torch.no_grad():
        for inputs, targets in windows(ids, model.config.max_position_embeddings):
            logits = model(torch.tensor([inputs])).logits[0]
            nats += F.cross_entropy(logits.double(), torch.tensor(targets), ignore_index=IGNORED, reduction="sum").item()
    n_tokens = len(ids) - (end is not None)
    loss = nats / (len(ids) - 1)
    return n_tokens, loss, nats / math.log(2) / len(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("text_file", type=Path)
    args = parser.parse_args()
    print(f"torch {torch.__version__} · transformers {transformers.__version__} · tokenizers {tokenizers.__version__}")
    model, tokenizer = load(args.run_folder)
    text = args.text_file.read_bytes()
    n_tokens, loss, bits_per_byte = evaluate(model, tokenizer, text)
    print(f"{type(model).__name__}, {len(text)} bytes, {n_tokens} tokens")
    print(f"loss {loss:.6f} nats per token · perplexity {math.exp(loss):.4f} · bits per byte {bits_per_byte:.6f}")
