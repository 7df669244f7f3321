# SPDX-License-Identifier: Apache-2.0
"""Steps of pion.jax against optax.contrib.muon on the CPU, inside one compiled training loop.

    python benchmarks/jax_steps.py            a table of workloads; seconds are minima
    python benchmarks/jax_steps.py --repeat 30 --markdown

Both sides take the same rule: Muon, classic coefficients, five iterations, no Nesterov (where
optax's differs), consistent RMS 0.2. Each is a compiled scan over a few steps that makes new
gradients from the weights, as a training loop does; what the same scan costs without an optimizer
is subtracted from both. Sides take turns, so that a busy moment hits both.
"""

import argparse
import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy
import optax
import pion.jax

import pion

# (how many, shape as JAX stores it: inputs x outputs, or a stack of heads)
HEADS = {
    "14 heads of 64 x 896": (1, (14, 896, 64)),  # Qwen2.5-0.5B, q_proj
    "8 heads of 128 x 1024": (1, (8, 1024, 128)),  # Qwen3-0.6B, k_proj
    "16 heads of 128 x 2048": (1, (16, 2048, 128)),
}
MLPS = {
    "MLP of Qwen2.5-0.5B": [(896, 4864), (896, 4864), (4864, 896)],  # gate, up, down
    "MLP of Qwen3-0.6B": [(1024, 3072), (1024, 3072), (3072, 1024)],
}
STEPS = 2  # of one compiled scan
PPO = "PPO loop, width 896, MLP 4864"  # one layer of Qwen2.5-0.5B's sizes as the Snake policy


def workloads():
    for name, (count, shape) in HEADS.items():
        yield name, [shape] * count
    yield from MLPS.items()


def sides(precision: str):
    numbers = optax.contrib.MuonDimensionNumbers(-2, -1)
    keys = {"momentum": 0.95, "nesterov": False, "scale": "match_rms_adamw"}

    def tree(params):
        return jax.tree.map(lambda _: numbers, params)

    return {
        "none": optax.sgd(1e-3),
        "optax": optax.contrib.muon(
            1e-3, nesterov=False, consistent_rms=0.2, muon_weight_dimension_numbers=tree
        ),
        "pion": pion.jax.muon(1e-3, precision=precision, dimension_numbers=numbers, **keys),
    }


def compiled_loop(optimizer, params, steps: int):
    noise = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)

    def step(carry, _):
        params, state = carry
        # a gradient that changes with the weights and costs one pass
        gradient = jax.tree.map(lambda p, n: n + 0.1 * p, params, noise)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    loop = jax.jit(lambda c: jax.lax.scan(step, c, length=steps)[0], donate_argnums=0)
    carry = (jax.tree.map(jnp.copy, params), optimizer.init(params))
    return loop.lower(carry).compile(), carry


def seconds(loops: dict, repeat: int, budget: float, steps: int) -> dict[str, float]:
    """Of one step: the minimum, with the sides taking turns; three turns at least."""
    best, end = dict.fromkeys(loops, float("inf")), time.perf_counter() + budget
    for turn in range(repeat):
        if turn >= 3 and time.perf_counter() > end:
            break
        for side, (loop, carry) in loops.items():
            started = time.perf_counter()
            carry = jax.block_until_ready(loop(carry))
            best[side] = min(best[side], (time.perf_counter() - started) / steps)
            loops[side] = (loop, carry)
    return best


def measure(shapes, precision: str, repeat: int, budget: float) -> dict[str, float]:
    rng = numpy.random.default_rng(0)
    params = {
        str(i): jnp.asarray(0.02 * rng.standard_normal(s, numpy.float32))
        for i, s in enumerate(shapes)
    }
    loops = {k: compiled_loop(o, params, STEPS) for k, o in sides(precision).items()}
    best = seconds(loops, repeat, budget, STEPS)
    return {k: best[k] - best["none"] for k in ("optax", "pion")}


def measure_ppo(precision: str, repeat: int, budget: float) -> dict[str, float]:
    """Whole matrices of a policy, inside the passes of examples/train_snake_purejaxrl.py over one
    roll-out: loss, gradient, two steps."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))
    import snake_jax
    import snake_policy_jax
    import train_snake_purejaxrl as trainer

    rules = snake_jax.Rules(height=4, width=4)
    net = snake_policy_jax.Network(
        4, 4, rules.planes, d_model=896, num_heads=14, mlp_ratio=4864 / 896
    )
    config = trainer.Config(rules, net, 16, num_envs=4, horizon=4, epochs=2, minibatches=1)
    kernels = {"kernel": optax.contrib.MuonDimensionNumbers(0, 1)}
    layer = {
        f"{part}_proj": {**kernels, "bias": None} if part in ("up", "down") else kernels
        for part in ("q", "k", "v", "o", "up", "down")
    }
    nothing = {"scale": None, "bias": None}
    numbers = {
        "layer0": {**layer, "attention_norm": nothing, "mlp_norm": nothing},
        "patch_projection": {"kernel": None, "bias": None},
        "policy_head": {"kernel": None, "bias": None},
        "value_head": {"kernel": None, "bias": None},
        "position": None,
        "final_norm": nothing,
    }
    chosen = {
        "none": optax.sgd(1e-3),
        "optax": optax.contrib.muon(
            1e-3, nesterov=False, consistent_rms=0.2, muon_weight_dimension_numbers=numbers
        ),
        "pion": pion.jax.multi_transform_with_muon(
            1e-3, 1e-3, nesterov=False, precision=precision, dimension_numbers=numbers
        ),
    }
    key, shape = jax.random.key(0), (config.horizon, config.num_envs)
    shapes = jax.eval_shape(lambda: snake_policy_jax.init(net, key))
    params = jax.tree.map(lambda x: 0.03 * jax.random.normal(key, x.shape), shapes)
    numbers_of = [0.1 * jax.random.normal(k, shape) for k in jax.random.split(key, 4)]
    seen = jax.random.normal(key, (*shape, rules.cells, rules.planes))
    batch = trainer.Transition(seen, jnp.zeros(shape, jnp.int32), *numbers_of)
    last = jnp.zeros(config.num_envs)
    loops = {}
    for side, optimizer in chosen.items():

        def passes(carry, optimizer=optimizer):
            return trainer.take_passes(config, optimizer, *carry, batch, last, 1.0, key)[:2]

        carry = (jax.tree.map(jnp.copy, params), optimizer.init(params))
        loops[side] = (jax.jit(passes, donate_argnums=0).lower(carry).compile(), carry)
    best = seconds(loops, repeat, budget, config.epochs)
    return {k: best[k] - best["none"] for k in ("optax", "pion")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=30, help="turns of every side, at most")
    parser.add_argument("--seconds", type=float, default=20, help="of a line, about")
    parser.add_argument("--precision", nargs="+", default=["accurate", "fast", "f32"])
    parser.add_argument("--only", default="", help="workloads whose name has this text")
    parser.add_argument("--markdown", action="store_true")
    a = parser.parse_args()
    if not pion.jax.has_kernels():
        raise SystemExit("jax_steps: this build of pion has no XLA handler; see docs/jax.md")
    threads = os.environ.get("PION_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    print(
        f"jax {jax.__version__}, optax {optax.__version__}, kernels {pion.cpu_target()}, "
        f"{threads} threads, minimum of {a.repeat} turns or {a.seconds:g} s; milliseconds a step"
    )
    row = "| {} | {} | {} | {} | {} |" if a.markdown else "{:24} {:10} {:>10} {:>10} {:>8}"
    print(row.format("workload", "precision", "optax", "pion", "ratio"))
    if a.markdown:
        print(row.format(*["---"] * 5))
    for name, shapes in (*workloads(), (PPO, None)):
        if a.only not in name:
            continue
        for precision in a.precision:
            if shapes is None:
                found = measure_ppo(precision, a.repeat, a.seconds)
            else:
                found = measure(shapes, precision, a.repeat, a.seconds)
            print(
                row.format(
                    name, precision, f"{1e3 * found['optax']:.2f}", f"{1e3 * found['pion']:.2f}",
                    f"{found['optax'] / found['pion']:.1f}",
                ),
                flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
