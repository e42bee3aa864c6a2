#!/usr/bin/env python3
"""Makes the PyTorch fixtures under tests/data/reference: small LLaMA and GPT-2 models with their loss, gradients
and ten AdamW steps, all computed in float64. Needs torch (1.13 or newer, CPU) and numpy.

    python3 scripts/reference/make_fixtures.py --out tests/data/reference

Also prints how far the same PyTorch code strays when run in float32: the yardstick for the tests' tolerances.
"""

import argparse
import json
import math
import os

import numpy as np
import torch

import reference_models as models
import safetensors_io

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 83,
    "n_positions": 32,
    "n_embd": 40,
    "n_layer": 2,
    "n_head": 5,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}
# Three steps of warm-up and a falling tail; large enough that ten steps move every weight visibly.
LEARNING_RATES = [1e-3, 2e-3, 3e-3, 2.9e-3, 2.6e-3, 2.2e-3, 1.7e-3, 1.2e-3, 7e-4, 3e-4]
STEPS = len(LEARNING_RATES)
FIXTURES = {
    "llama": {
        "config": LLAMA,
        "seed": 20240,
        "batch": (3, 19),
        "adamw": {"betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "max_grad_norm": 1.0},
    },
    "gpt2": {
        "config": GPT2,
        "seed": 20241,
        "batch": (2, 17),
        # An eps larger than usual, so that a wrong place for it shows; a limit that clips some steps and not others.
        "adamw": {"betas": [0.9, 0.999], "eps": 1e-5, "weight_decay": 0.1, "max_grad_norm": 3.0},
    },
}


def initial_weights(config, rng):
    """float32 weights of a scale at which no gradient vanishes; gains stray from 1 and biases from 0."""
    weights = {}
    for name, shape in models.parameter_shapes(config).items():
        noise = rng.standard_normal(shape)
        is_gain = len(shape) == 1 and name.endswith(".weight")
        weights[name] = (1 + 0.2 * noise if is_gain else 0.15 * noise).astype(np.float32)
    return weights


def is_decayed(name, weight):
    """Decay reaches matrices only: not norms, biases or embeddings. The untied head is a matrix like any other."""
    return weight.dim() >= 2 and not any(part in name for part in ("embed_tokens", ".wte.", ".wpe."))


def train(config, weights, batches, settings):
    """Runs AdamW with clipping, one batch a step. Returns (losses, norms before clipping, final weights)."""
    leaves = {name: weight.clone().requires_grad_(True) for name, weight in weights.items()}
    decayed = [leaf for name, leaf in leaves.items() if is_decayed(name, leaf)]
    spared = [leaf for name, leaf in leaves.items() if not is_decayed(name, leaf)]
    groups = [
        {"params": decayed, "weight_decay": settings["weight_decay"]},
        {"params": spared, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=tuple(settings["betas"]), eps=settings["eps"])
    losses, norms = [], []
    for batch, learning_rate in zip(batches, LEARNING_RATES):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad()
        loss = models.mean_loss(config, leaves, batch)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(leaves.values(), settings["max_grad_norm"]).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, {name: leaf.detach() for name, leaf in leaves.items()}


def as_float32(tensors, prefix=""):
    return {prefix + name: tensor.detach().numpy().astype(np.float32) for name, tensor in tensors.items()}


def format_json(value):
    """JSON with one line a key and one a list of scalars, so that a change shows in a diff."""
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(key)}: {format_json(entry)}" for key, entry in value.items()) + "\n}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(format_json(entry) for entry in value) + "\n]"
    return json.dumps(value)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        file.write(format_json(value) + "\n")


def settle(value):
    """Rounds to 12 significant digits: what lies past them depends on a library's order of summation."""
    return float(f"{value:.12g}")


def settle_tensor(tensor):
    """Stores 0 for what is 0 but for float64 rounding: the key bias's gradient is, since softmax ignores a shift."""
    return tensor.where(tensor.abs() > 1e-14, torch.zeros_like(tensor))


def make_fixture(folder, spec):
    os.makedirs(folder, exist_ok=True)
    config, settings = spec["config"], spec["adamw"]
    rng = np.random.RandomState(spec["seed"])  # its streams are frozen across numpy versions
    stored = initial_weights(config, rng)
    rows, length = spec["batch"]
    tokens = rng.randint(0, config["vocab_size"], size=(STEPS, rows, length + 1))
    batches = list(torch.from_numpy(tokens.astype(np.int64)))

    runs = {}
    for dtype in (torch.float64, torch.float32):
        weights = {name: torch.from_numpy(array.copy()).to(dtype) for name, array in stored.items()}
        loss, grads = models.gradients(config, weights, batches[0])
        scores = models.logits(config, weights, batches[0][:, :-1])
        runs[dtype] = (loss, scores, grads, *train(config, weights, batches, settings))
    loss, scores, grads, losses, norms, trained = runs[torch.float64]

    write_json(os.path.join(folder, "config.json"), config)
    safetensors_io.save(os.path.join(folder, "model.safetensors"), stored)
    write_json(os.path.join(folder, "batch.json"), tokens[0].tolist())
    settled = {name: settle_tensor(grad) for name, grad in grads.items()}
    expected = {"loss": np.array([settle(loss)]), "logits": scores.numpy().astype(np.float32)}
    expected.update(as_float32(settled, "grad."))
    safetensors_io.save(os.path.join(folder, "expected.safetensors"), expected)
    safetensors_io.save(os.path.join(folder, "after10.safetensors"), as_float32(trained))
    summary = {
        **settings,
        "decayed": [name for name, weight in trained.items() if is_decayed(name, weight)],
        "learning_rates": LEARNING_RATES,
        "losses": [settle(value) for value in losses],
        "grad_norms": [settle(value) for value in norms],
        "batches": tokens.tolist(),
    }
    write_json(os.path.join(folder, "adamw.json"), summary)
    report(os.path.basename(folder), stored, runs)


def report(name, stored, runs):
    loss, scores, grads, losses, norms, trained = runs[torch.float64]
    loss32, scores32, grads32, losses32, norms32, trained32 = runs[torch.float32]
    moved = {key: (trained[key] - torch.from_numpy(stored[key])).abs().max().item() for key in stored}
    strayed = {key: (trained[key] - trained32[key]).abs().max().item() for key in stored}
    worst_grad = max(grads, key=lambda key: relative_error(grads32[key], grads[key]))
    worst_weight = max(strayed, key=lambda key: strayed[key] / moved[key])
    print(f"{name}: {sum(array.size for array in stored.values())} parameters, loss {loss:.9f} (ln V is "
          f"{math.log(scores.shape[-1]):.3f}), ten steps {losses[0]:.4f} -> {losses[-1]:.4f}, "
          f"gradient norms {min(norms):.3f} to {max(norms):.3f}")
    print(f"  max |gradient| per parameter: {min(g.abs().max().item() for g in grads.values()):.2e} to "
          f"{max(g.abs().max().item() for g in grads.values()):.2e}")
    print("  the same in float32 strays by (relative to the largest value of each tensor):")
    print(f"    loss {abs(loss32 - loss) / loss:.1e}, logits {relative_error(scores32, scores):.1e}, "
          f"gradients {relative_error(grads32[worst_grad], grads[worst_grad]):.1e} ({worst_grad})")
    print(f"    ten losses {max(abs(a - b) / b for a, b in zip(losses32, losses)):.1e}, "
          f"ten norms {max(abs(a - b) / b for a, b in zip(norms32, norms)):.1e}, weights after ten steps "
          f"{strayed[worst_weight]:.1e} of {moved[worst_weight]:.1e} moved ({worst_weight})")


def relative_error(value, reference):
    """max|a - b| / max|b|."""
    return ((value.double() - reference).abs().max() / reference.abs().max()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder that gets one subfolder a fixture")
    out = parser.parse_args().out
    torch.set_num_threads(1)  # one order of summation, hence the same bytes on every run
    print(f"torch {torch.__version__}, numpy {np.__version__}")
    for name, spec in FIXTURES.items():
        make_fixture(os.path.join(out, name), spec)


if __name__ == "__main__":
    main()
