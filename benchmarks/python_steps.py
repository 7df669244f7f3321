# SPDX-License-Identifier: Apache-2.0
"""How long is one optimizer step of a whole model, from Python? pion against torch.optim's Muon and
fused AdamW and optax.contrib.muon: same machine, f32 weights, fixed gradients, contenders in turn
within one process for each number of threads.

    python benchmarks/python_steps.py                      # Markdown on stdout
    python benchmarks/python_steps.py --json steps.json --threads 1 --seconds 60

Needs torch, transformers and, for its rows, jax and optax (script/bootstrap hosts jax).
"""

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings

MODELS = {
    "gpt2-tiny": "GPT-2 of 4 layers, width 128, vocabulary 8192: 1.9 M parameters in 52 tensors",
    "qwen3-0.6b": "Qwen3-0.6B, 1 of 28 layers and 1/28 of the embedding: 21.3 M parameters",
}


def make_model(name: str):
    import torch
    import transformers as t

    torch.manual_seed(0)
    if name == "gpt2-tiny":
        config = t.GPT2Config(vocab_size=8192, n_embd=128, n_layer=4, n_head=4, n_positions=256)
        return t.GPT2LMHeadModel(config)
    config = t.Qwen3Config(
        vocab_size=151936 // 28, hidden_size=1024, intermediate_size=3072, num_hidden_layers=1,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
    )  # fmt: skip
    return t.Qwen3ForCausalLM(config)


# contenders: each takes a model with gradients and returns a function that makes one step


def parts(model):
    """Hidden matrices, and the rest; the same for all contenders."""
    import pion

    rules = {r.name: r.is_matrix for r in pion.route(model).routes}
    named = list(model.named_parameters())
    return [p for n, p in named if rules[n]], [p for n, p in named if not rules[n]]


def torch_muon(model):
    import torch

    matrices, rest = parts(model)
    muon = torch.optim.Muon(matrices, lr=1e-5, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=1e-5, fused=True)
    return lambda: (muon.step(), adamw.step())


def torch_adamw(model):
    import torch

    return torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True).step


def pion_muon(model, precision="accurate"):
    import pion

    matrices, rest = parts(model)
    groups = [{"params": matrices, "rule": "muon", "precision": precision}]
    return pion.PionAdamW([*groups, {"params": rest, "rule": "adamw"}], lr=1e-5).step


def pion_routed(model, matrices):
    import pion

    return pion.PionAdamW(pion.route(model, rules={"matrices": matrices}), lr=1e-5).step


def pion_adamw(model):
    import pion

    return pion.PionAdamW([{"params": list(model.parameters()), "rule": "adamw"}], lr=1e-5).step


def optax_muon(model):
    import jax
    import optax

    matrices, rest = parts(model)
    arrays = lambda tensors: [jax.numpy.asarray(p.detach().numpy()) for p in tensors]
    params = {"matrices": arrays(matrices), "rest": arrays(rest)}
    grads = {key: [jax.numpy.asarray(p.grad.numpy()) for p in part]
             for key, part in (("matrices", matrices), ("rest", rest))}  # fmt: skip
    dims = {
        "matrices": [optax.contrib.MuonDimensionNumbers(1, 0) for _ in matrices],
        "rest": [None for _ in rest],
    }
    muon = optax.contrib.muon(1e-5, consistent_rms=0.2, muon_weight_dimension_numbers=dims)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, grads):
        updates, state = muon.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    held = [params, muon.init(params)]

    def step():
        held[:] = jax.block_until_ready(update(held[0], held[1], grads))

    return step


CONTENDERS = {
    "torch.optim.AdamW(fused)": torch_adamw,
    "pion, AdamW on everything": pion_adamw,
    "torch.optim.Muon + AdamW(fused)": torch_muon,
    "optax.contrib.muon, jit": optax_muon,
    "pion, Muon, accurate": pion_muon,
    "pion, Muon, fast (bf16)": functools.partial(pion_muon, precision="fast"),
    "pion, Muon per head": functools.partial(pion_routed, matrices="muon"),
    "pion, Pion per head (default)": functools.partial(pion_routed, matrices="pion"),
}
# whose row is divided by whose time
PEERS = {
    "pion, AdamW on everything": "torch.optim.AdamW(fused)",
    **dict.fromkeys(list(CONTENDERS)[4:], "torch.optim.Muon + AdamW(fused)"),
}


def measure(model_name: str, seconds: float) -> dict:
    """{contender: [milliseconds of every step]}, contenders in turn."""
    import torch

    steps = {}
    for name, make in CONTENDERS.items():
        model = make_model(model_name)
        generator = torch.Generator().manual_seed(1)
        for p in model.parameters():
            p.grad = 1e-3 * torch.randn(p.shape, generator=generator)
        try:
            steps[name] = make(model)
        except ImportError as error:
            print(f"left out: {name}: {error}", file=sys.stderr)
    times = {name: [] for name in steps}
    for step in steps.values():  # states, compilation, workspaces
        step(), step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[name]) < 3:
        for name, step in steps.items():
            before = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - before))
    return times


def child(threads: int, seconds: float, models: list[str]):
    """One process of one thread count; JSON on the last line."""
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cpus)  # XLA takes its thread count from here
    os.environ.update(OMP_NUM_THREADS=str(threads), TRANSFORMERS_VERBOSITY="error")
    import torch

    torch.set_num_threads(threads)
    import pion

    # gradients of pure noise are what Pion's filter keeps out
    warnings.simplefilter("ignore", pion.EmptyUpdateWarning)

    result = {name: measure(name, seconds) for name in models}
    versions = {"torch": torch.__version__, "pion": pion.__version__, "cpu": pion.cpu_target()}
    if "optax" in sys.modules:
        versions |= {name: sys.modules[name].__version__ for name in ("jax", "optax")}
    print(json.dumps({"threads": threads, "versions": versions, "times": result}))


def table(results: list[dict]) -> str:
    """Markdown: least and middle time in milliseconds, and the peer's divided by ours."""
    lines = []
    for model in results[0]["times"]:
        what = MODELS[model]
        head = [f"{r['threads']} thread{'s' * (r['threads'] > 1)}" for r in results]
        lines += [f"\n{what}\n", f"| a step, ms: least (median) | {' | '.join(head)} |"]
        lines.append("| --- |" + " ---: |" * len(results))
        for name in CONTENDERS:
            cells = []
            for r in results:
                times = r["times"][model]
                if name not in times:
                    cells.append("-")
                    continue
                cell = f"{min(times[name]):.3g} ({statistics.median(times[name]):.3g})"
                if name in PEERS:
                    cell += f", {min(times[PEERS[name]]) / min(times[name]):.2f}x"
                cells.append(cell)
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cpu_model() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=30, help="for each model and thread count")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--json", help="where all times go")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.threads[0], arguments.seconds, arguments.models)
        return
    results = []
    for threads in arguments.threads:
        command = [sys.executable, __file__, "--child", f"--threads={threads}"]
        command += [f"--seconds={arguments.seconds}", "--models", *arguments.models]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(run.stdout.strip().splitlines()[-1]))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"machine": cpu_model(), "results": results}, file)
    versions = ", ".join(f"{name} {value}" for name, value in results[0]["versions"].items())
    print(f"{cpu_model()}; {versions}; factor: the peer's least time divided by ours")
    print(table(results))


if __name__ == "__main__":
    main()
