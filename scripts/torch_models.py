"""LLaMA and GPT-2 in plain PyTorch, made to be fast: rivals for scripts/bench_pytorch.py.

Each maker takes the torch module, a shape (the keys of configs/models/*.json), whether blocks are recomputed in backward, and
whether the residual stream is bf16, as llmz's is in bf16; forward(tokens [B, S], targets [B, S]) gives the mean loss.
"""

import importlib


def make(torch, shape, checkpointed, half):
    """The model of shape["architecture"], one of MAKERS."""
    importlib.import_module("torch.utils.checkpoint")  # torch itself does not load it
    return MAKERS[shape["architecture"]](torch, shape, checkpointed, half)


def run_blocks(torch, blocks, checkpointed, x, *more):
    for block in blocks:
        if checkpointed:
            x = torch.utils.checkpoint.checkpoint(block, x, *more, use_reentrant=False)
        else:
            x = block(x, *more)
    return x


def initialise(torch, model):
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.02)


def mean_loss(torch, logits, targets):
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def make_llama(torch, shape, checkpointed, half):
    nn, functional = torch.nn, torch.nn.functional
    hidden, heads, context = shape["hidden"], shape["heads"], shape["context"]
    width = hidden // heads

    class RmsNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(hidden))

        def forward(self, x):
            x32 = x.float()
            scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + shape["norm_eps"])
            return (x32 * scale).type_as(x) * self.gain.type_as(x)

    def rotate(x, cos, sin):  # x [B, heads, S, width]
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = RmsNorm(), RmsNorm()
            self.query_key_value = nn.Linear(hidden, 3 * hidden, bias=False)
            self.output = nn.Linear(hidden, hidden, bias=False)
            self.gate_up = nn.Linear(hidden, 2 * shape["intermediate"], bias=False)
            self.down = nn.Linear(shape["intermediate"], hidden, bias=False)

        def forward(self, x, cos, sin):
            batch, sequence, _ = x.shape
            qkv = self.query_key_value(self.attention_norm(x)).view(batch, sequence, 3, heads, width)
            query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.output(mixed.transpose(1, 2).reshape(batch, sequence, hidden))
            gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
            return x + self.down(functional.silu(gate) * up)

    class Llama(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(shape["vocab_size"], hidden)
            self.blocks = nn.ModuleList(Block() for _ in range(shape["layers"]))
            self.norm = RmsNorm()
            self.head = nn.Linear(hidden, shape["vocab_size"], bias=False)
            frequency = shape["rope_base"] ** (-torch.arange(0, width, 2).float() / width)
            angle = torch.outer(torch.arange(context).float(), frequency)
            self.register_buffer("cos", angle.cos(), persistent=False)
            self.register_buffer("sin", angle.sin(), persistent=False)
            initialise(torch, self)

        def forward(self, tokens, targets):
            x = self.embedding(tokens)
            if half:
                x = x.to(torch.bfloat16)
            cos = self.cos[: tokens.shape[1]].to(x.dtype)
            sin = self.sin[: tokens.shape[1]].to(x.dtype)
            x = run_blocks(torch, self.blocks, checkpointed, x, cos, sin)
            return mean_loss(torch, self.head(self.norm(x)), targets)

    return Llama()


def make_gpt2(torch, shape, checkpointed, half):
    nn, functional = torch.nn, torch.nn.functional
    hidden, heads = shape["hidden"], shape["heads"]
    width = hidden // heads

    class LayerNorm(nn.LayerNorm):
        def __init__(self):
            super().__init__(hidden, eps=shape["norm_eps"])

        def forward(self, x):
            return super().forward(x).type_as(x)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = LayerNorm(), LayerNorm()
            self.query_key_value = nn.Linear(hidden, 3 * hidden)
            self.output = nn.Linear(hidden, hidden)
            self.up = nn.Linear(hidden, shape["intermediate"])
            self.down = nn.Linear(shape["intermediate"], hidden)

        def forward(self, x):
            batch, sequence, _ = x.shape
            qkv = self.query_key_value(self.attention_norm(x)).view(batch, sequence, 3, heads, width)
            query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.output(mixed.transpose(1, 2).reshape(batch, sequence, hidden))
            return x + self.down(functional.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))

    class Gpt2(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(shape["vocab_size"], hidden)
            self.positions = nn.Embedding(shape["context"], hidden)
            self.blocks = nn.ModuleList(Block() for _ in range(shape["layers"]))
            self.norm = LayerNorm()
            initialise(torch, self)

        def forward(self, tokens, targets):
            x = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
            if half:
                x = x.to(torch.bfloat16)
            x = run_blocks(torch, self.blocks, checkpointed, x)
            return mean_loss(torch, functional.linear(self.norm(x), self.embedding.weight), targets)

    return Gpt2()


MAKERS = {"llama": make_llama, "gpt2": make_gpt2}
