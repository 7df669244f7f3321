# SPDX-License-Identifier: Apache-2.0
"""Snake in C++ and in JAX at equal settings: learning curves and steps per second.

    python benchmarks/jax_snake.py --seeds 1 2 3      runs both, in turns, and prints the tables
    python benchmarks/jax_snake.py --tables           of runs that are there

Both take one thread. Curve: mean score of the last 100 finished games. Score: 100 greedy games at
the end.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
POINTS = 10  # of the curves' tables
RECIPE = ROOT / "lab/recipes/snake_purejaxrl.toml"


def run_both(seed: int, folder: pathlib.Path, binary: pathlib.Path):
    one_thread = {
        **os.environ, "PION_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    }  # fmt: skip
    seeded, cpu = ["--seed", str(seed)], min(os.sched_getaffinity(0))
    subprocess.run(
        [binary, "train", RECIPE, "--optimizer.rest.lr", "1e-3", *seeded, "--no-report", "--out",
         folder / f"cpp-{seed}"], check=True, cwd=ROOT,
    )  # fmt: skip
    subprocess.run(
        ["taskset", "-c", str(cpu), sys.executable, ROOT / "examples/train_snake_purejaxrl.py",
         "--use-muon", "--aux-adam-lr", "1e-3", *seeded, "--out", folder / f"jax-{seed}"],
        check=True, env=one_thread,
    )  # fmt: skip


def read(run: pathlib.Path) -> dict | None:
    """{curve: [(steps, score)], score, speed} of either program's metrics.jsonl; None if it has
    not ended."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    if "greedy_score_mean" in lines[-1]:
        curve = [(m["env_steps"], m["score_mean"]) for m in lines[:-1]]
        return {
            "curve": curve, "score": lines[-1]["greedy_score_mean"],
            "speed": lines[-1]["steps_per_second"],
        }  # fmt: skip
    if not lines[-1].get("final"):
        return None
    updates = [m["metrics"] for m in lines if m["kind"] == "update"]
    return {
        "curve": [(m["env_steps"], m["score_mean"]) for m in updates if "score_mean" in m],
        "score": lines[-1]["metrics"]["score_mean"],
        "speed": statistics.median(m["steps_per_second"] for m in updates),
    }


def spread(values) -> str:
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.1f} ± {error:.1f}"


def tables(folder: pathlib.Path):
    found = {}
    for side in ("cpp", "jax"):
        runs = [read(p.parent) for p in sorted(folder.glob(f"{side}-*/metrics.jsonl"))]
        found[side] = [run for run in runs if run is not None]
        if not found[side]:
            sys.exit(f"jax_snake: {folder} must hold runs {side}-SEED that have ended, got none")
    counts = " and ".join(f"{len(runs)} {side}" for side, runs in found.items())
    print(f"{counts} runs, mean ± standard error\n")
    print("| environment steps | C++ | JAX |\n| --- | --- | --- |")
    curve = found["cpp"][0]["curve"]
    for i in range(1, POINTS + 1):
        at = curve[i * len(curve) // POINTS - 1][0]
        cells = [
            spread([min(r["curve"], key=lambda p: abs(p[0] - at))[1] for r in runs])
            for runs in found.values()
        ]
        print(f"| {at:,} | {cells[0]} | {cells[1]} |")
    for title, key in (("greedy score", "score"), ("steps per second", "speed")):
        cells = [spread([r[key] for r in runs]) for runs in found.values()]
        print(f"| {title} | {cells[0]} | {cells[1]} |")
    for title, side in (("C++", "cpp"), ("JAX", "jax")):
        print(f"\n{title}: " + ", ".join(f"{r['score']:.1f}" for r in found[side]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs/jax_snake")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build/release/apps/pion")
    parser.add_argument("--tables", action="store_true", help="run nothing")
    a = parser.parse_args()
    if not a.tables:
        a.out.mkdir(parents=True, exist_ok=True)
        for seed in a.seeds:
            run_both(seed, a.out, a.binary)
    tables(a.out)


if __name__ == "__main__":
    main()
