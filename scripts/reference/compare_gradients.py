#!/usr/bin/env python3
"""Compares a gradient file of `llmz grads` with PyTorch's gradients, computed in float64 from the same weights.

    llmz grads CHECKPOINT --tokens tokens.json --out grads.safetensors
    python3 scripts/reference/compare_gradients.py CHECKPOINT --tokens tokens.json --grads grads.safetensors

CHECKPOINT holds config.json and model.safetensors in Hugging Face's layout (llama or gpt2); tokens.json is an array
[B][S+1] of token ids. Prints max|a - b| / max|b| per parameter; exits 1 if the loss or any of them is past
--tolerance, or if a gradient is missing, unknown or of another shape. Needs torch (1.13 or newer) and numpy.
"""

import argparse
import json
import sys

import torch

import reference_models as models
import safetensors_io


def read_tokens(path, vocab_size):
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)
    if not rows or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        raise ValueError(f"{path}: expected rows of one length, at least 2 ids each")
    tokens = torch.tensor(rows, dtype=torch.int64)
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise ValueError(f"{path}: a token id lies outside 0..{vocab_size - 1}")
    return tokens


def relative_error(value, reference):
    """max|a - b| / max|b|; infinite for another shape and for NaN; for an all-zero b, whether a is zero too."""
    if value.shape != reference.shape:
        return float("inf")
    difference, scale = (value - reference).abs().max().item(), reference.abs().max().item()
    if difference != difference:
        return float("inf")
    if scale == 0:
        return 0.0 if difference == 0 else float("inf")
    return difference / scale


def compare(checkpoint, tokens_path, grads_path):
    """Returns {name: relative error}, with "loss" among the names."""
    config, weights = models.load_checkpoint(checkpoint)
    loss, reference = models.gradients(config, weights, read_tokens(tokens_path, config["vocab_size"]))
    reference["loss"] = torch.tensor([loss], dtype=torch.float64)
    arrays = safetensors_io.load(grads_path)
    found = {name: torch.from_numpy(array.astype("float64")) for name, array in arrays.items()}
    print(f"loss {found['loss'].item() if 'loss' in found else 'missing'}, PyTorch {loss:.9f}")
    errors = {}
    for name in ["loss", *weights, *sorted(set(found) - set(reference))]:
        both = name in found and name in reference
        errors[name] = relative_error(found[name], reference[name]) if both else float("inf")
        if not both:
            print(f"{name}: {'no such parameter in the checkpoint' if name in found else 'missing in the file'}")
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint, run folder, or folder with config.json and model.safetensors")
    parser.add_argument("--tokens", required=True, help="JSON array [B][S+1] of token ids")
    parser.add_argument("--grads", required=True, help="safetensors written by llmz grads")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative error allowed (default 1e-4)")
    arguments = parser.parse_args()
    newest = os.path.join(arguments.checkpoint, "checkpoints", "last")
    checkpoint = newest if os.path.isdir(newest) else arguments.checkpoint  # of a run folder, as llmz grads takes it
    try:
        errors = compare(checkpoint, arguments.tokens, arguments.grads)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"compare_gradients: {error}")
    for name, error in errors.items():
        print(f"{error:10.2e}  {name}{'' if error <= arguments.tolerance else '  <-- past the tolerance'}")
    past = sum(error > arguments.tolerance for error in errors.values())
    print(f"{len(errors)} compared, worst {max(errors.values()):.2e}, {past} past {arguments.tolerance:g}")
    return 1 if past else 0


if __name__ == "__main__":
    sys.exit(main())
