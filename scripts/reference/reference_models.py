"""LLaMA and GPT-2 written from their published definitions, for comparison with llmz.

Weights are a dict under Hugging Face's parameter names and layouts; everything runs in the dtype of the
weights (float64 for a reference). Shapes: B sequences, S positions, H hidden, V vocabulary, D head width.
"""

import json
import math
import os

import numpy as np
import torch
from torch.nn import functional as F

import safetensors_io


def load_checkpoint(folder, dtype=torch.float64):
    """Returns (config, {name: tensor}) from config.json and model.safetensors."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    arrays = safetensors_io.load(os.path.join(folder, "model.safetensors"))
    weights = {name: torch.from_numpy(array.astype(np.float64)).to(dtype) for name, array in arrays.items()}
    expected = parameter_shapes(config)
    for name in sorted(set(expected) | set(weights)):
        found = tuple(weights[name].shape) if name in weights else None
        if found != expected.get(name):
            raise ValueError(f"{folder}: {name} has shape {found}, config.json asks for {expected.get(name)}")
    return config, weights


def parameter_shapes(config):
    """{name: shape} of every stored parameter, in the order of the forward pass."""
    return _ARCHITECTURES[config["model_type"]][0](config)


def logits(config, weights, ids):
    """ids [B, S] -> logits [B, S, V]."""
    return _ARCHITECTURES[config["model_type"]][1](config, weights, ids)


def mean_loss(config, weights, tokens):
    """tokens [B, S+1] -> cross-entropy of every next token, summed over the B*S targets and divided by B*S."""
    scores = logits(config, weights, tokens[:, :-1])
    return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), tokens[:, 1:].reshape(-1))


def gradients(config, weights, tokens):
    """Returns (loss, {name: gradient of the mean loss})."""
    leaves = {name: weight.detach().clone().requires_grad_(True) for name, weight in weights.items()}
    loss = mean_loss(config, leaves, tokens)
    loss.backward()
    return loss.item(), {name: leaf.grad for name, leaf in leaves.items()}


def causal_attention(q, k, v):
    """softmax(q kᵀ / √D + causal mask) v. q [B, heads, S, D]; k, v [B, kv_heads, S, D]; query head i reads
    key/value head i // (heads / kv_heads)."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1) @ v


def split_heads(x, heads):
    """[B, S, heads*D] -> [B, heads, S, D]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x):
    """[B, heads, S, D] -> [B, S, heads*D]."""
    return x.transpose(1, 2).flatten(2)


# LLaMA (Touvron et al. 2023): RMSNorm, rotary positions, SwiGLU, no biases.


def llama_shapes(config):
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv_width = hidden // config["num_attention_heads"] * kv_heads(config)
    shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        shapes[block + "input_layernorm.weight"] = (hidden,)
        shapes[block + "self_attn.q_proj.weight"] = (hidden, hidden)
        shapes[block + "self_attn.k_proj.weight"] = (kv_width, hidden)
        shapes[block + "self_attn.v_proj.weight"] = (kv_width, hidden)
        shapes[block + "self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[block + "post_attention_layernorm.weight"] = (hidden,)
        shapes[block + "mlp.gate_proj.weight"] = (inner, hidden)
        shapes[block + "mlp.up_proj.weight"] = (inner, hidden)
        shapes[block + "mlp.down_proj.weight"] = (hidden, inner)
    shapes["model.norm.weight"] = (hidden,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def kv_heads(config):
    return config.get("num_key_value_heads") or config["num_attention_heads"]


def rms_norm(x, weight, eps):
    """x / √(mean(x²) + eps) · weight."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, base):
    """Rotary embedding, x [B, heads, S, D]: the pair (x_i, x_{i+D/2}) at position p turns by p · base^(-2i/D)."""
    length, width = x.shape[-2:]
    frequency = base ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
    angle = torch.arange(length, dtype=x.dtype)[:, None] * frequency
    first, second = x.chunk(2, dim=-1)
    return torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1
    )


def llama_logits(config, weights, ids):
    eps, base = config.get("rms_norm_eps", 1e-6), config.get("rope_theta", 10000.0)
    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):

        def linear(name, value, block=f"model.layers.{layer}."):
            return value @ weights[f"{block}{name}.weight"].T

        normed = rms_norm(x, weights[f"model.layers.{layer}.input_layernorm.weight"], eps)
        q = split_heads(linear("self_attn.q_proj", normed), config["num_attention_heads"])
        k = split_heads(linear("self_attn.k_proj", normed), kv_heads(config))
        v = split_heads(linear("self_attn.v_proj", normed), kv_heads(config))
        attended = causal_attention(rotate(q, base), rotate(k, base), v)
        x = x + linear("self_attn.o_proj", merge_heads(attended))

        normed = rms_norm(x, weights[f"model.layers.{layer}.post_attention_layernorm.weight"], eps)
        gated = F.silu(linear("mlp.gate_proj", normed)) * linear("mlp.up_proj", normed)
        x = x + linear("mlp.down_proj", gated)
    x = rms_norm(x, weights["model.norm.weight"], eps)
    tied = config.get("tie_word_embeddings", False)
    return x @ weights["model.embed_tokens.weight" if tied else "lm_head.weight"].T


# GPT-2 (Radford et al. 2019): learned positions, LayerNorm, GELU (tanh), biases, tied head.


def gpt2_shapes(config):
    hidden, inner = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    shapes = {
        "transformer.wte.weight": (config["vocab_size"], hidden),
        "transformer.wpe.weight": (config["n_positions"], hidden),
    }

    def add(name, *shape):
        shapes[name + ".weight"] = shape
        shapes[name + ".bias"] = shape[-1:]

    for layer in range(config["n_layer"]):
        block = f"transformer.h.{layer}."
        add(block + "ln_1", hidden)
        add(block + "attn.c_attn", hidden, 3 * hidden)
        add(block + "attn.c_proj", hidden, hidden)
        add(block + "ln_2", hidden)
        add(block + "mlp.c_fc", hidden, inner)
        add(block + "mlp.c_proj", inner, hidden)
    add("transformer.ln_f", hidden)
    return shapes


def layer_norm(x, weight, bias, eps):
    """(x - mean) / √(variance + eps) · weight + bias, with the variance divided by the width."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + eps) * weight + bias


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))


def gpt2_logits(config, weights, ids):
    eps, heads = config.get("layer_norm_epsilon", 1e-5), config["n_head"]
    embedding = weights["transformer.wte.weight"]
    x = embedding[ids] + weights["transformer.wpe.weight"][: ids.shape[1]]
    for layer in range(config["n_layer"]):

        def pair(name, block=f"transformer.h.{layer}."):
            return weights[f"{block}{name}.weight"], weights[f"{block}{name}.bias"]

        def linear(name, value):  # Conv1D: the weight is stored [in, out]
            weight, bias = pair(name)
            return value @ weight + bias

        q, k, v = linear("attn.c_attn", layer_norm(x, *pair("ln_1"), eps)).chunk(3, dim=-1)
        attended = causal_attention(split_heads(q, heads), split_heads(k, heads), split_heads(v, heads))
        x = x + linear("attn.c_proj", merge_heads(attended))
        inner = gelu_tanh(linear("mlp.c_fc", layer_norm(x, *pair("ln_2"), eps)))
        x = x + linear("mlp.c_proj", inner)
    x = layer_norm(x, weights["transformer.ln_f.weight"], weights["transformer.ln_f.bias"], eps)
    return x @ embedding.T


_ARCHITECTURES = {"llama": (llama_shapes, llama_logits), "gpt2": (gpt2_shapes, gpt2_logits)}
