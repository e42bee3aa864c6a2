#!/usr/bin/env python3
"""llmz beside PyTorch on one machine, in turns: tokens/s, peak memory, ratios.

PyTorch trains the shape of configs/models/MODEL.json (LLaMA or GPT-2) with the batch and sequence that llmz gets:
scaled_dot_product_attention, fused AdamW, clipping. llmz runs through `llmz bench step --json`. Every round runs every
contestant once, in a process of its own; what is told is the median over the rounds, and the median of the rounds' ratios.

On a GPU all multiply bf16 with fp32 master weights (PyTorch: autocast), eager and compiled, with and without activation
checkpointing, against llmz under each of --presets. On the CPU llmz runs in each of --precisions, PyTorch eager and
compiled in fp32, and compiled with bf16 autocast.

    scripts/bench_pytorch.py --device cpu --model llama-60m --micro-batch 8 --sequence 256 --threads 2
    scripts/bench_pytorch.py --device cpu --model gpt2-124m --micro-batch 4 --sequence 64 --threads 2
    scripts/bench_pytorch.py --model llama-350m --micro-batch 32 --sequence 256 --json peers.json
    scripts/bench_pytorch.py --device cpu --small        a trial: says nothing about speed

Needs PyTorch 2 for the compiled runs; with an older one they are left out.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

import torch_models

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTORCH = {  # name: (compiled, checkpointed, bf16 autocast)
    "cuda": {
        "torch eager": (False, False, True),
        "torch compiled": (True, False, True),
        "torch eager, checkpointed": (False, True, True),
        "torch compiled, checkpointed": (True, True, True),
    },
    "cpu": {
        "torch eager fp32": (False, False, False),
        "torch compiled fp32": (True, False, False),
        "torch compiled bf16": (True, False, True),
    },
}
# What each device's contestants from llmz are, where not asked for otherwise.
PRESETS = {"cuda": "full,checkpoint,prac,compact_n4,lean", "cpu": "full"}
PRECISIONS = {"cuda": "bf16", "cpu": "fp32,bf16"}
# Larger learning rates or clipping would change no time. AdamW's are llmz's defaults.
LEARNING_RATE, BETAS, WEIGHT_DECAY, CLIP_NORM = 1e-3, (0.9, 0.95), 0.1, 1.0


def stop(message):
    sys.exit(f"error: {message}")


def load_torch():
    try:
        import torch
    except ImportError:
        stop(f"PyTorch is not installed for {sys.executable}: `pip install torch`, or run this script with a Python that has it")
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
    if shape.get("architecture", "llama") not in torch_models.MAKERS:
        stop(f"--model {args.model}: only {', '.join(torch_models.MAKERS)} are written in PyTorch here")
    if shape.get("kv_heads", 0) not in (0, shape["heads"]):
        stop(f"--model {args.model} shares key and value heads; the PyTorch model here has none that do")
    shape.setdefault("architecture", "llama")
    shape.setdefault("norm_eps", 1e-6)
    shape.setdefault("rope_base", 10000.0)
    shape["context"] = max(shape.get("context", 1024), args.sequence)
    return shape


def device_kind(args):
    return "cuda" if args.device.startswith("cuda") else "cpu"


def make_optimizer(torch, model):
    """AdamW in one pass, which PyTorch has on CPUs since 2.4."""
    settings = {"lr": LEARNING_RATE, "betas": BETAS, "weight_decay": WEIGHT_DECAY}
    try:
        return torch.optim.AdamW(model.parameters(), fused=True, **settings)
    except (RuntimeError, TypeError):
        return torch.optim.AdamW(model.parameters(), **settings)


def run_torch(args, name):
    """One contestant in this process; prints its result as JSON."""
    torch = load_torch()
    compiled, checkpointed, autocast = PYTORCH[device_kind(args)][name]
    cuda = device_kind(args) == "cuda"
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    shape = load_shape(args)
    model = torch_models.make(torch, shape, checkpointed, autocast).to(args.device)
    optimizer = make_optimizer(torch, model)
    run = torch.compile(model) if compiled else model
    tokens = torch.randint(shape["vocab_size"], (args.micro_batch, args.sequence + 1), device=args.device)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    synchronize = torch.cuda.synchronize if cuda else lambda: None

    def step():
        with torch.autocast(device_kind(args), dtype=torch.bfloat16, enabled=autocast):
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
        "loss": loss.item(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
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
    for key in ("micro_batch", "sequence", "repeat", "warm_up", "threads"):
        command += ["--" + key.replace("_", "-"), str(getattr(args, key))]
    output, why = call(command + (["--small"] if args.small else []), args.timeout)
    return (json.loads(last_line_of_json(output)), "") if output else (None, why)


def last_line_of_json(output):
    return [line for line in output.splitlines() if line.startswith("{")][-1]


def llmz_once(args, preset, precision):
    sets = [f"train.device={args.device}", f"precision={precision}", f"preset={preset}", f"train.threads={args.threads}"]
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
        "peak_bytes": step["allocated_bytes" if device_kind(args) == "cuda" else "peak_resident_bytes"],
        "share_of_product": step["matmul_parameters_only"]["fraction_of_peak"],
    }, ""


def contestants(args, torch):
    runs = [(preset, precision) for preset in args.presets.split(",") for precision in args.precisions.split(",")]
    first = [(f"llmz {a} {b}", lambda a=a, b=b: llmz_once(args, a, b)) for a, b in runs]
    known = PYTORCH[device_kind(args)]
    names = [n for n in known if hasattr(torch, "compile") or not known[n][0]]
    if args.small:
        names = [n for n in names if not known[n][0]]  # compiling takes longer than all the rest
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


def ratios(rounds, name, other):
    """tokens/s over another's, within each round: what slows both cancels."""
    pairs = [(r[name], r[other]) for r in rounds if r[name] and r[other]]
    return [a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs]


def summarise(rounds, names):
    """One row a contestant."""
    rows = []
    for name in names:
        there = [r[name] for r in rounds if r[name]]
        if not there:
            rows.append({"name": name, "failed": True})
            continue
        peaks = [r["peak_bytes"] for r in there if r["peak_bytes"]]
        shares = [r["share_of_product"] for r in there if "share_of_product" in r]
        rows.append({
            "name": name,
            "tokens_per_second": statistics.median(r["tokens_per_second"] for r in there),
            "share_of_product": statistics.median(shares) if shares else None,
            "ratios": {other: ratios(rounds, name, other) for other in names if other != name},
            "peak_bytes": max(peaks) if peaks else None,
            "parameters": there[0]["parameters"],
        })
    return rows


def print_table(rows):
    print(f"{'':<30}{'tokens/s':>12}{'of product':>12}{'peak GB':>10}")
    for row in rows:
        if row.get("failed"):
            print(f"{row['name']:<30}{'failed':>12}")
            continue
        share = f"{100 * row['share_of_product']:.0f} %" if row["share_of_product"] else "-"
        peak = f"{row['peak_bytes'] * 1e-9:.3f}" if row["peak_bytes"] else "-"
        print(f"{row['name']:<30}{row['tokens_per_second']:>12.0f}{share:>12}{peak:>10}")


def print_ratios(rows):
    """Each of llmz's runs over its first one and over each of PyTorch's."""
    print(f"\n{'tokens/s over':<62}{'ratio':>8}{'lowest, highest':>18}")
    for row in rows:
        if row.get("failed") or not row["name"].startswith("llmz"):
            continue
        for other, values in row["ratios"].items():
            if values and (other == rows[0]["name"] or not other.startswith("llmz")):
                spread = f"{min(values):.2f}, {max(values):.2f}"
                print(f"{row['name']:<30}{other:<32}{statistics.median(values):>8.2f}{spread:>18}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-350m", help="name in configs/models, or a JSON file")
    parser.add_argument("--micro-batch", type=int, default=16, help="windows in a step")
    parser.add_argument("--sequence", type=int, default=256, help="tokens in a window")
    parser.add_argument("--presets", help=f"llmz's; the first is the yardstick ({PRESETS['cuda']}; on the CPU {PRESETS['cpu']})")
    parser.add_argument("--precisions", help=f"llmz's ({PRECISIONS['cuda']}; on the CPU {PRECISIONS['cpu']})")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of both; 0: as many as each takes by itself")
    parser.add_argument("--repeat", type=int, default=10, help="steps measured in a run")
    parser.add_argument("--warm-up", type=int, default=3, help="PyTorch's steps before those (llmz has one)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turns")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one run")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 … or cpu")
    parser.add_argument("--llmz", default=str(ROOT / "build/bin/llmz"), help="the program")
    parser.add_argument("--json", metavar="FILE", help="write every round's numbers there")
    parser.add_argument("--small", action="store_true", help="a tiny model, one round: to try this script")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.presets = args.presets or PRESETS[device_kind(args)]
    args.precisions = args.precisions or PRECISIONS[device_kind(args)]
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
    print_ratios(rows)
    if args.json:
        result = {"machine": machine, "torch": torch.__version__, "arguments": vars(args), "summary": rows, "rounds": rounds}
        pathlib.Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    if any(row.get("failed") for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
