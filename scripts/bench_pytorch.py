#!/usr/bin/env python3
"""llmz beside PyTorch on one machine, in turns: tokens/s, peak memory, ratios.

PyTorch trains the LLaMA shape of configs/models/MODEL.json with the batch and sequence that llmz gets: bf16 products with
fp32 master weights (autocast), scaled_dot_product_attention, fused AdamW, eager and compiled, with and without activation
checkpointing. llmz runs through `llmz bench step --json` under each of --presets. Every round runs every contestant once,
in a process of its own; what is told is the median over the rounds, and the median of the rounds' ratios to the first preset.

    scripts/bench_pytorch.py --model llama-350m --micro-batch 32 --sequence 256 --json peers.json
    scripts/bench_pytorch.py --device cpu --small        a trial without a GPU: says nothing about speed

Needs PyTorch 2 for the compiled runs; with an older one they are left out.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTORCH = {  # name: (compiled, checkpointed)
    "torch eager": (False, False),
    "torch compiled": (True, False),
    "torch eager, checkpointed": (False, True),
    "torch compiled, checkpointed": (True, True),
}
# Larger learning rates or clipping would change no time. AdamW's are llmz's defaults.
LEARNING_RATE, BETAS, WEIGHT_DECAY, CLIP_NORM = 1e-3, (0.9, 0.95), 0.1, 1.0


def stop(message):
    sys.exit(f"error: {message}")


def load_torch():
    try:
        import torch
    except ImportError:
        stop("there is no PyTorch here (python3 -c 'import torch' fails)")
    return torch


def load_shape(args):
    """Keys of configs/models/*.json, with llmz's defaults."""
    if args.small:
        shape = {"vocab_size": 320, "hidden": 64, "intermediate": 128, "layers": 2, "heads": 4, "context": 64}
    else:
        path = pathlib.Path(args.model)
        if path.suffix != ".json":
            path = ROOT / "configs" / "models" / f"{args.model}.json"
        try:
            shape = json.loads(path.read_text())
        except OSError as error:
            stop(f"--model {args.model}: {error.strerror}: {path}")
    if shape.get("architecture", "llama") != "llama":
        stop(f"--model {args.model} is no LLaMA; only that shape is written here")
    if shape.get("kv_heads", 0) not in (0, shape["heads"]):
        stop(f"--model {args.model} shares key and value heads; the PyTorch model here has none that do")
    shape.setdefault("norm_eps", 1e-6)
    shape.setdefault("rope_base", 10000.0)
    shape["context"] = max(shape.get("context", 1024), args.sequence)
    return shape


def make_llama(torch, shape, checkpointed):
    """A LLaMA in plain PyTorch; forward(tokens, targets) gives the mean loss."""
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
            for parameter in self.parameters():
                if parameter.dim() == 2:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, tokens, targets):
            x = self.embedding(tokens)
            if torch.is_autocast_enabled():  # llmz's residual stream is bf16 as well
                x = x.to(torch.bfloat16)
            cos = self.cos[: tokens.shape[1]].to(x.dtype)
            sin = self.sin[: tokens.shape[1]].to(x.dtype)
            for block in self.blocks:
                if checkpointed:
                    x = torch.utils.checkpoint.checkpoint(block, x, cos, sin, use_reentrant=False)
                else:
                    x = block(x, cos, sin)
            logits = self.head(self.norm(x))
            return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    import torch.utils.checkpoint

    return Llama()


def run_torch(args, name):
    """One contestant in this process; prints its result as JSON."""
    torch = load_torch()
    compiled, checkpointed = PYTORCH[name]
    cuda = args.device.startswith("cuda")
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    shape = load_shape(args)
    model = make_llama(torch, shape, checkpointed).to(args.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, **({"fused": True} if cuda else {})
    )
    run = torch.compile(model) if compiled else model
    tokens = torch.randint(shape["vocab_size"], (args.micro_batch, args.sequence + 1), device=args.device)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    synchronize = torch.cuda.synchronize if cuda else lambda: None

    def step():
        with torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16, enabled=cuda):
            loss = run(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    for _ in range(args.warm_up):
        loss = step()
    synchronize()
    seconds = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        loss = step()
        synchronize()
        seconds.append(time.perf_counter() - start)
    result = {
        "tokens_per_second": args.micro_batch * args.sequence / statistics.median(seconds),
        "loss": float(loss),
        "parameters": sum(p.numel() for p in model.parameters()),
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "reserved_bytes": torch.cuda.max_memory_reserved() if cuda else None,
    }
    print(json.dumps(result))


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it said nothing"


def call(command, timeout):
    """Standard output of a command, or (None, why)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return None, f"over {timeout} s"
    except OSError as error:
        return None, f"{command[0]}: {error.strerror}"
    if done.returncode != 0:
        return None, f"exit code {done.returncode}: {last_line(done.stderr or done.stdout)}"
    return done.stdout, ""


def torch_once(args, name):
    command = [sys.executable, __file__, "--contestant", name, "--model", args.model, "--device", args.device]
    for key in ("micro_batch", "sequence", "repeat", "warm_up"):
        command += ["--" + key.replace("_", "-"), str(getattr(args, key))]
    output, why = call(command + (["--small"] if args.small else []), args.timeout)
    return (json.loads(last_line_of_json(output)), "") if output else (None, why)


def last_line_of_json(output):
    return [line for line in output.splitlines() if line.startswith("{")][-1]


def llmz_once(args, preset):
    precision = "bf16" if args.device.startswith("cuda") else "fp32"
    sets = [f"train.device={args.device}", f"precision={precision}", f"preset={preset}"]
    shape = load_shape(args)
    sets.append("model=" + json.dumps(shape))
    command = [args.llmz, "bench", "step", "--json", "--repeat", str(args.repeat)]
    command += ["--micro-batch", str(args.micro_batch), "--sequence", str(args.sequence)]
    for setting in sets:
        command += ["--set", setting]
    output, why = call(command, args.timeout)
    if not output:
        return None, why
    step = json.loads(output)
    return {
        "tokens_per_second": step["tokens_per_second"],
        "parameters": step["parameters"],
        "peak_bytes": step["allocated_bytes"],
    }, ""


def contestants(args, torch):
    first = [("llmz " + preset, lambda p=preset: llmz_once(args, p)) for preset in args.presets.split(",")]
    names = [n for n in PYTORCH if hasattr(torch, "compile") or not PYTORCH[n][0]]
    if args.small:
        names = [n for n in names if not PYTORCH[n][0]]  # compiling takes longer than all the rest
    return first + [(name, lambda n=name: torch_once(args, n)) for name in names]


def measure(args, rivals):
    rounds = []
    for number in range(args.rounds):
        results = {}
        for name, once in rivals:
            results[name], why = once()
            shown = f"{results[name]['tokens_per_second']:.0f} tokens/s" if results[name] else f"failed: {why}"
            print(f"round {number + 1}, {name}: {shown}", file=sys.stderr, flush=True)
        rounds.append(results)
    return rounds


def summarise(rounds, names):
    """One row a contestant; the ratio compares within a round, so what slows both cancels."""
    rows = []
    for name in names:
        there = [r[name] for r in rounds if r[name]]
        if not there:
            rows.append({"name": name, "failed": True})
            continue
        pairs = [(r[name], r[names[0]]) for r in rounds if r[name] and r[names[0]]]
        ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs]
        peaks = [r["peak_bytes"] for r in there if r["peak_bytes"]]
        rows.append({
            "name": name,
            "tokens_per_second": statistics.median(r["tokens_per_second"] for r in there),
            "ratio_to_first": statistics.median(ratios) if ratios else None,
            "ratios": ratios,
            "peak_bytes": max(peaks) if peaks else None,
            "parameters": there[0]["parameters"],
        })
    return rows


def print_table(rows):
    print(f"{'':<30}{'tokens/s':>12}{'ratio':>9}{'lowest, highest':>18}{'peak GB':>10}")
    for row in rows:
        if row.get("failed"):
            print(f"{row['name']:<30}{'failed':>12}")
            continue
        ratio = f"{row['ratio_to_first']:.3f}" if row["ratios"] else "-"
        spread = f"{min(row['ratios']):.3f}, {max(row['ratios']):.3f}" if row["ratios"] else "-"
        peak = f"{row['peak_bytes'] * 1e-9:.3f}" if row["peak_bytes"] else "-"
        print(f"{row['name']:<30}{row['tokens_per_second']:>12.0f}{ratio:>9}{spread:>18}{peak:>10}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-350m", help="name in configs/models, or a JSON file")
    parser.add_argument("--micro-batch", type=int, default=16, help="windows in a step")
    parser.add_argument("--sequence", type=int, default=256, help="tokens in a window")
    parser.add_argument("--presets", default="full,checkpoint,prac,compact_n4,lean", help="llmz's; the first is the yardstick")
    parser.add_argument("--repeat", type=int, default=10, help="steps measured in a run")
    parser.add_argument("--warm-up", type=int, default=3, help="PyTorch's steps before those (llmz has one)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turns")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one run")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 … or cpu")
    parser.add_argument("--llmz", default=str(ROOT / "build/bin/llmz"), help="the program")
    parser.add_argument("--json", metavar="FILE", help="write every round's numbers there")
    parser.add_argument("--small", action="store_true", help="a tiny model, one round: to try this script")
    parser.add_argument("--contestant", choices=list(PYTORCH), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.small and not args.contestant:
        args.micro_batch, args.sequence, args.repeat, args.warm_up, args.rounds = 2, 32, 2, 1, 2
    args.llmz = str(pathlib.Path(args.llmz).resolve())  # runs start in the repository, not where the user stands
    if pathlib.Path(args.model).suffix == ".json":
        args.model = str(pathlib.Path(args.model).resolve())
    return args


def main():
    args = parse_arguments()
    if args.contestant:
        run_torch(args, args.contestant)
        return
    torch = load_torch()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        stop("PyTorch sees no GPU (torch.cuda.is_available() is false); --device cpu --small tries the script without")
    if not pathlib.Path(args.llmz).exists():
        stop(f"there is no {args.llmz}: build llmz first, or name it with --llmz")
    load_shape(args)
    rivals = contestants(args, torch)
    rounds = measure(args, rivals)
    rows = summarise(rounds, [name for name, _ in rivals])
    machine = torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"
    print(f"{args.model if not args.small else 'a tiny model'}, {args.micro_batch} x {args.sequence} tokens, {machine}, "
          f"PyTorch {torch.__version__}, {args.rounds} rounds")
    print_table(rows)
    if args.json:
        result = {"machine": machine, "torch": torch.__version__, "arguments": vars(args), "summary": rows, "rounds": rounds}
        pathlib.Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    if any(row.get("failed") for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
