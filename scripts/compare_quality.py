#!/usr/bin/env python3
"""Trains the same small LLaMA under every method, with learning rates tuned by equal effort, and prints a table.

For each method: two learning rates, then half and twice the factor of the blocks' matrices at the better one (embedding
and head keep theirs), then one step further the way that helped, all with the first seed; then the best setting with two
more seeds. Methods whose own scale makes block updates a quarter as large (CompAct's alpha) start at four times the factor.
Every finished run is one line of OUT/runs.jsonl, so an interrupted comparison goes on where it stopped.

  scripts/compare_quality.py --text FILE [--out out/quality] [--steps 400] [--jobs 2] [--methods full,lean]
  scripts/compare_quality.py --table --out out/quality     only the table of the runs that are there

Needs nothing but Python's own library. The text may be compressed with gzip (dictd's .dict.dz is).
"""
import argparse
import concurrent.futures
import gzip
import json
import os
import pathlib
import shutil
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = "full lean quant4 prac_linear prac_sign prac compact_n2 compact_n4 fast".split()
RATES = [4e-3, 8e-3]
FACTOR = 0.25  # of the blocks' learning rate, to begin with
SEEDS = [1, 2, 3]
MODEL = {"architecture": "llama", "vocab_size": 2048, "hidden": 128, "intermediate": 344, "layers": 4, "heads": 4,
         "context": 256}
ROLES = ["qkv_input", "gate_up_input", "norm", "attention_output", "gate_up", "down_input"]


def prepare(llmz, text, folder):
    if (folder / "dataset.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "text.txt"
    with gzip.open(text) if open(text, "rb").read(2) == b"\x1f\x8b" else open(text, "rb") as source:
        plain.write_bytes(source.read().decode("utf-8", "replace").encode())
    subprocess.run([llmz, "data", "prepare", "--input", plain, "--out", folder, "--tokenizer",
                    f"train:{MODEL['vocab_size']}", "--validation", "0.02", "--overwrite"], check=True)


def configuration(args, data, method, rate, factor, seed, run):
    return {
        "preset": method,
        "model": MODEL,
        "data": {"path": str(data)},
        "precision": "fp32",
        "activations": {role: {"refresh": args.refresh} for role in ROLES},
        "optimizer": {"lr": rate, "beta2": 0.95, "weight_decay": 0, "lr_scale": {"blocks": factor}},
        "schedule": {"warmup": 0.1, "final_fraction": 0.1},
        "train": {"seed": seed, "steps": args.steps, "sequence": 256, "micro_batch": 8, "global_batch": 8,
                  "threads": 1, "eval_every": 0, "eval_batches": args.eval_batches},
        "output": {"path": str(run), "save_every": 0, "save_best": False},
    }


def train(args, data, method, rate, factor, seed):
    """One run; returns its line."""
    name = f"{method}-{rate:g}-{factor:g}-{seed}"
    run = args.out / name
    config = args.out / f"{name}.json"
    config.write_text(json.dumps(configuration(args, data, method, rate, factor, seed, run), indent=2))
    environment = dict(os.environ, OMP_WAIT_POLICY="passive")
    done = subprocess.run([args.llmz, "train", config, "--overwrite"], capture_output=True, text=True,
                          env=environment)
    line = {"method": method, "lr": rate, "blocks": factor, "seed": seed, "steps": args.steps}
    if done.returncode != 0:  # a rate too high for the method: the error says which tensor went wrong
        line.update(loss=None, error=done.stderr.strip().splitlines()[-1])
    else:
        metrics = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
        line.update(loss=[m["validation_loss"] for m in metrics if "validation_loss" in m][-1],
                    step_seconds=statistics.median(m["seconds"] for m in metrics if "seconds" in m))
    shutil.rmtree(run, ignore_errors=True)
    with open(args.out / "runs.jsonl", "a") as log:
        log.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)
    return line


def load_runs(out):
    path = out / "runs.jsonl"
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def find(runs, method, rate, factor, seed):
    return next((r for r in runs if (r["method"], r["lr"], r["blocks"], r["seed"]) == (method, rate, factor, seed)), None)


def best(runs):
    return min((r for r in runs if r["loss"] is not None), key=lambda r: r["loss"])


def compare_method(args, data, method):
    def run(rate, factor, seed):
        return find(load_runs(args.out), method, rate, factor, seed) or train(args, data, method, rate, factor, seed)

    start = 4 * FACTOR if method.startswith("compact") else FACTOR
    tuned = [run(rate, start, SEEDS[0]) for rate in RATES]
    rate = best(tuned)["lr"]
    tuned += [run(rate, factor, SEEDS[0]) for factor in (start / 2, 2 * start)]
    beyond = best(tuned)["blocks"] ** 2 / start  # start itself where nothing helped: that run is there already
    tuned.append(run(rate, beyond, SEEDS[0]))
    chosen = best(tuned)
    for seed in SEEDS[1:]:
        run(chosen["lr"], chosen["blocks"], seed)


def code_bytes(args, method):
    config = args.out / f"plan-{method}.json"
    config.write_text(json.dumps({"model": MODEL, "train": {"sequence": 256, "micro_batch": 8, "global_batch": 8}}))
    rows = json.loads(subprocess.run([args.llmz, "plan", config, "--compare", "--json"], check=True,
                                     capture_output=True, text=True).stdout)
    return next(row for row in rows if row["preset"] == method)


def table(args):
    runs = load_runs(args.out)
    rows = []
    for method in args.methods:
        mine = [r for r in runs if r["method"] == method]
        if not any(r["loss"] for r in mine):
            continue
        first = best([r for r in mine if r["seed"] == SEEDS[0]])
        same = [r for r in mine if (r["lr"], r["blocks"]) == (first["lr"], first["blocks"]) and r["loss"] is not None]
        rows.append((method, first, same, code_bytes(args, method)))
    reference = {r["seed"]: r["loss"] for r in rows[0][2]}
    print("| method | lr | blocks × | loss, mean of seeds | spread | against full, perplexity | code bytes a token and layer "
          "| optimizer, MB | step, s |\n|---|---|---|---|---|---|---|---|---|")
    for method, first, same, plan in rows:
        losses = [r["loss"] for r in same]
        mean = statistics.mean(losses)
        # Seed by seed, so that what the seed does to both cancels.
        paired = [r["loss"] - reference[r["seed"]] for r in same if r["seed"] in reference]
        against = 100 * (2.718281828459045 ** statistics.mean(paired) - 1) if paired else float("nan")
        seconds = statistics.median(r["step_seconds"] for r in same)
        print(f"| {method} | {first['lr']:g} | {first['blocks']:g} | {mean:.4f} ({len(losses)}) | "
              f"{max(losses) - min(losses):.4f} | {against:+.2f} % | {plan['code_bytes_per_token_layer']:.0f} | "
              f"{plan['optimizer'] / 1e6:.1f} | {seconds:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="what to learn from")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "out/quality")
    parser.add_argument("--llmz", default=str(ROOT / "build/bin/llmz"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--refresh", type=int, default=50, help="steps between refreshes, for every method")
    parser.add_argument("--eval-batches", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=METHODS)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.table:
        if not args.text:
            parser.error("--text is needed")
        data = args.out / "data"
        prepare(args.llmz, args.text, data)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda method: compare_method(args, data, method), args.methods))
    table(args)


if __name__ == "__main__":
    main()
