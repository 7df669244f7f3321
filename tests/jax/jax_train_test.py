# SPDX-License-Identifier: Apache-2.0
"""PPO on Snake in JAX: its formulas, its flags, its sweep, and that it learns."""

import itertools
import json
import os
import pathlib
import subprocess
import sys
import tomllib

import jax
import jax.numpy as jnp
import numpy
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import pion.jax
import snake_jax as snake
import snake_policy_jax as policy
import train_snake_purejaxrl as trainer

SWEEP = ROOT / "examples/wandb_sweep_jax_ppo.yaml"
RECIPE = ROOT / "lab/recipes/snake_purejaxrl.toml"
BINARY = pathlib.Path(os.environ.get("PION_BINARY", ROOT / "build/release/apps/pion"))
SMALL = ["--size", "4", "--num-envs", "16", "--d-model", "16", "--num-heads", "2"]


def small_config(timesteps: int) -> trainer.Config:
    rules = snake.Rules(height=4, width=4)
    net = policy.Network(4, 4, rules.planes, d_model=16, num_heads=2)
    return trainer.Config(rules, net, timesteps, num_envs=16)


def test_advantages_are_their_definition():
    # f32 sums of 32 terms whose weights add up to 1 / (1 - 0.99 * 0.95) = 17
    config = small_config(512)
    rng = numpy.random.default_rng(0)
    shape = (32, 16)
    reward, value = rng.standard_normal((2, *shape))
    done = rng.random(shape) < 0.1
    last = rng.standard_normal(16)
    expected, carry, following = numpy.empty(shape), numpy.zeros(16), last
    for t in reversed(range(32)):
        delta = reward[t] + 0.99 * following * ~done[t] - value[t]
        carry = delta + 0.99 * 0.95 * ~done[t] * carry
        expected[t], following = carry, value[t]
    as_f32 = [jnp.asarray(x, jnp.float32) for x in (value, reward, done)]
    batch = trainer.Transition(None, None, None, *as_f32)
    found = trainer.advantages(config, batch, jnp.asarray(last, jnp.float32))
    assert numpy.abs(numpy.asarray(found) - expected).max() <= 17 * 5 * 32 * 2.0**-24


def test_the_loss_is_its_definition():
    config = small_config(512)
    params = policy.init(config.net, jax.random.key(0))
    boards = jax.vmap(lambda k: snake.reset(config.rules, snake.random_draws(k)))(
        jax.random.split(jax.random.key(1), 8)
    )
    seen = jax.vmap(snake.observe, in_axes=(None, 0))(config.rules, boards)
    rng = numpy.random.default_rng(2)
    action = rng.integers(0, 4, 8)
    old, v_old, advantage, target = rng.standard_normal((4, 8))
    old = -1.4 + 0.4 * old
    batch = trainer.Transition(
        seen, jnp.asarray(action), *(jnp.asarray(x, jnp.float32) for x in (old, v_old, old, old))
    )
    loss = jax.jit(trainer.ppo_loss, static_argnums=0)
    total, parts = loss(
        config, params, batch, *(jnp.asarray(x, jnp.float32) for x in (advantage, target))
    )
    output = jax.jit(policy.forward, static_argnums=0)(config.net, params, seen)
    logits, value = (numpy.asarray(x, numpy.float64) for x in output)
    log_p = logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))
    ratio = numpy.exp(log_p[numpy.arange(8), action] - old)
    a = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    surrogate = -numpy.minimum(ratio * a, numpy.clip(ratio, 0.8, 1.2) * a).mean()
    clipped = v_old + numpy.clip(value - v_old, -0.2, 0.2)
    error = 0.5 * numpy.maximum((value - target) ** 2, (clipped - target) ** 2).mean()
    entropy = -(numpy.exp(log_p) * log_p).sum(-1).mean()
    # f32 on sums of 8 terms below 10
    assert numpy.allclose(parts[:3], [surrogate, error, entropy], atol=80 * 2.0**-24)
    assert abs(float(total) - (surrogate + 0.5 * error - 0.01 * entropy)) <= 160 * 2.0**-24
    # equal advantages: no direction at all
    same = jnp.full(8, 0.7)
    assert float(loss(config, params, batch, same, same)[1][0]) == 0


def test_a_minibatch_without_advantages_takes_no_step():
    config = small_config(512)._replace(minibatches=1, epochs=1)
    params = policy.init(config.net, jax.random.key(0))
    optimizer = pion.jax.chain_with_muon(0.1, 0.1, 0.5)
    zeros = jnp.zeros((config.horizon, 16))
    batch = trainer.Transition(
        jnp.zeros((config.horizon, 16, 16, 15)), zeros.astype(jnp.int32), zeros, zeros, zeros, zeros
    )
    passes = jax.jit(trainer.take_passes, static_argnums=(0, 1))
    after, state, _ = passes(
        config, optimizer, params, optimizer.init(params), batch, jnp.zeros(16), 1.0,
        jax.random.key(0),
    )  # fmt: skip
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(after), strict=True)
    assert all(jnp.array_equal(x, y) for x, y in pairs)
    assert state[1].inner_states["matrix"].inner_state[0].count == 0


def test_seeds_train_side_by_side():
    config = small_config(256)._replace(horizon=8, epochs=1, minibatches=1)
    train = trainer.make_train(config, pion.jax.chain_with_muon(0.02, 1e-3, 0.5))
    keys = jax.random.split(jax.random.key(0), 2)
    _, together = jax.jit(jax.vmap(train))(keys)
    _, alone = jax.jit(train)(keys[1])
    assert together["score_mean"].shape == (2, config.updates)
    # the games are the same as long as no rounding changes a choice: the first update's are
    assert float(together["score_mean"][1, 0]) == float(alone["score_mean"][0])


def test_it_learns(tmp_path):
    # 4 x 4 board. The random policy eats 0.3 foods a game; twelve thousand steps teach 1.5 and
    # more with any seed that was tried.
    words = [*SMALL, "--total-timesteps", "16384", "--eval-episodes", "50", "--out", str(tmp_path)]
    score = trainer.main([*words, "--use-muon", "--aux-adam-lr", "1e-3"])
    assert score > 1.0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 33 and lines[31]["env_steps"] == 16384
    assert lines[32]["greedy_score_mean"] == pytest.approx(score)
    assert lines[31]["score_mean"] > lines[1]["score_mean"]


def test_bad_flags():
    with pytest.raises(ValueError, match="num_heads must divide d_model = 16, got 3"):
        trainer.main(["--d-model", "16", "--num-heads", "3"])
    with pytest.raises(SystemExit, match="at least one batch, 2048, got 100"):
        trainer.main(["--total-timesteps", "100"])


@pytest.mark.parametrize(
    "words, said",
    [
        (["--muon-lr", "0.01"], "--muon-lr needs --use-muon"),
        (["--no-muon-nesterov"], "--muon-nesterov needs --use-muon"),
        (["--use-muon", "--lr", "1e-3"], "--lr goes without --use-muon"),
        (["--use-muon", "--muon-lr", "-1"], "--muon-lr must be >= 0, got -1.0"),
        (["--lr", "nan"], "--lr must be >= 0, got nan"),
    ],
)
def test_flags_are_not_ignored(words, said, capsys):
    with pytest.raises(SystemExit):
        trainer.arguments(words)
    assert said in capsys.readouterr().err


def swept() -> set[tuple[float, float, float]]:
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    config = utils.load_sweep_config(str(SWEEP))
    values = {k: v["values"] for k, v in config["parameters"].items()}
    assert config["method"] == "grid" and set(values) == {
        "muon-lr", "aux-adam-lr", "muon-momentum",
    }  # fmt: skip
    return set(itertools.product(values["muon-lr"], values["aux-adam-lr"], values["muon-momentum"]))


def test_the_sweep_spans_its_ranges_and_the_client_makes_commands_of_it():
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    points = swept()
    for column, ends in enumerate(((0.01, 0.05), (5e-5, 1e-3), (0.90, 0.99))):
        values = {p[column] for p in points}
        assert (min(values), max(values)) == ends
    config = utils.load_sweep_config(str(SWEEP))
    lr, rest, momentum = min(points)
    chosen = {"muon-lr": lr, "aux-adam-lr": rest, "muon-momentum": momentum}
    made = utils.create_sweep_command_args({"args": {k: {"value": v} for k, v in chosen.items()}})
    command = utils.create_sweep_command(config["command"])
    at = command.index("${args}")
    words = [*command[:at], *made["args"], *command[at + 1 :]]
    a = trainer.arguments(words[words.index("${program}") + 1 :])
    assert a.use_muon and a.wandb
    assert (a.muon_lr, a.aux_adam_lr, a.muon_momentum) == (lr, rest, momentum)
    assert (ROOT / config["program"]).exists()
    assert config["metric"] == {"name": "greedy_score_mean", "goal": "maximize"}


def test_compare_runs_the_same_sweep_without_a_service():
    recipe = tomllib.loads(RECIPE.read_text())
    compare = recipe["compare"]
    assert compare["lr_key"] == "optimizer.rest.lr"
    names = compare["optimizers"].split(",")
    points = {
        (compare["settings"][n]["lr"], rest, compare["settings"][n]["momentum"])
        for n in names
        for rest in compare["grid"][n]
    }
    assert points == swept()
    # and what the two programs share is the same
    a = trainer.arguments([])
    matrices = recipe["optimizer"]["matrices"]
    assert (matrices["lr"], matrices["momentum"]) == (a.muon_lr, a.muon_momentum)
    assert matrices["nesterov"] == a.muon_nesterov and matrices["scale"] == "original"
    assert recipe["optimizer"]["rest"]["lr"] == a.aux_adam_lr
    assert recipe["total_timesteps"] == a.total_timesteps
    assert recipe["ppo"]["max_grad_norm"] == a.max_grad_norm
    config = trainer.Config._field_defaults
    for key in ("horizon", "epochs", "minibatches", "gamma", "gae_lambda", "clip"):
        assert recipe["ppo"][key] == config[key], key
    assert recipe["ppo"]["entropy_coefficient"] == config["entropy_coefficient"]
    model = recipe["model"]
    assert (model["d_model"], model["num_layers"], model["num_heads"]) == (
        a.d_model, a.num_layers, a.num_heads,
    )  # fmt: skip
    if BINARY.exists():
        shown = subprocess.run(
            [BINARY, "compare", RECIPE, "--dry-run"], capture_output=True, text=True, check=True
        ).stdout
        assert all(n in shown for n in names)


def test_wandb_without_a_network(tmp_path):
    pytest.importorskip("wandb")
    words = [*SMALL, "--total-timesteps", "1024", "--eval-episodes", "2", "--wandb"]
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    subprocess.run(
        [sys.executable, ROOT / "examples/train_snake_purejaxrl.py", *words], check=True,
        cwd=tmp_path, env=environment, capture_output=True,
    )  # fmt: skip
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"greedy_score_mean" in log.read_bytes() and b"score_mean" in log.read_bytes()
