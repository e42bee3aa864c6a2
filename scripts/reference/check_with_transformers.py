#!/usr/bin/env python3
"""Checks the fixtures against Hugging Face's own models: loads each fixture folder with transformers and compares
logits, loss and every gradient with what is stored. Needs torch and transformers.

    python3 scripts/reference/check_with_transformers.py tests/data/reference
"""

import json
import os
import sys

import torch
import transformers

import safetensors_io

# transformers computes LLaMA's RMSNorm, rotary angles and softmax in float32 even in a float64 model.
TOLERANCE = 2e-6


def relative_error(value, reference):
    return ((value.detach() - reference).abs().max() / reference.abs().max()).item()


def check(folder):
    """Returns the worst relative errors (logits, loss, gradients) against transformers in float64."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    if info["unexpected_keys"] or info["missing_keys"]:
        raise ValueError(f"{folder}: names that transformers does not share: {info}")
    model = model.double().eval()
    arrays = safetensors_io.load(os.path.join(folder, "expected.safetensors"))
    expected = {name: torch.from_numpy(array.astype("float64")) for name, array in arrays.items()}
    with open(os.path.join(folder, "batch.json"), encoding="utf-8") as file:
        tokens = torch.tensor(json.load(file))

    logits = model(tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    grads = {f"grad.{name}": parameter.grad for name, parameter in model.named_parameters()}
    if set(grads) != {name for name in expected if name.startswith("grad.")}:
        raise ValueError(f"{folder}: expected.safetensors names other parameters than transformers")
    return (
        relative_error(logits, expected["logits"]),
        relative_error(loss.reshape(1), expected["loss"]),
        max(relative_error(grad, expected[name]) for name, grad in grads.items()),
    )


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    worst = 0.0
    for name in sorted(os.listdir(sys.argv[1])):
        folder = os.path.join(sys.argv[1], name)
        if os.path.isdir(folder):
            errors = check(folder)
            worst = max(worst, *errors)
            print("{}: relative error of logits {:.1e}, loss {:.1e}, gradients {:.1e}".format(name, *errors))
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
