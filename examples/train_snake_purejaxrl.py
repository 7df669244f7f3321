# SPDX-License-Identifier: Apache-2.0
"""PPO teaches a transformer to play Snake: the whole loop under jit, in the manner of PureJaxRL.

    PION_JAX=1 pip install '.[jax]' && python examples/train_snake_purejaxrl.py --use-muon --muon-lr 0.02

Rules, network and PPO are those of `pion train snake`, in the same units; docs/results/jax.md
compares the two. Read from top to bottom: roll-out, advantages, loss, update, training.
"""

import argparse
import json
import pathlib
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pion.jax
import snake_jax as snake
import snake_policy_jax as policy

WINDOW = 100  # finished episodes that the means are taken over


class Config(NamedTuple):
    rules: snake.Rules
    net: policy.Network
    total_timesteps: int  # of all boards together
    num_envs: int = 64
    horizon: int = 32  # steps per board and update
    epochs: int = 4
    minibatches: int = 4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2  # of the ratio and the value
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01

    @property
    def updates(self) -> int:
        return self.total_timesteps // (self.num_envs * self.horizon)


class Transition(NamedTuple):
    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array


class Episodes(NamedTuple):
    """The last finished ones: return, length, score."""

    rows: jax.Array  # (WINDOW, 3)
    finished: jax.Array

    def add(self, outcome: snake.Outcome, done):
        place = (self.finished + jnp.cumsum(done) - 1) % WINDOW
        new = (outcome.episode_return, outcome.episode_length, outcome.score)
        new = jnp.stack([x.astype(jnp.float32) for x in new], -1)
        rows = self.rows.at[jnp.where(done, place, WINDOW)].set(new, mode="drop")
        return Episodes(rows, self.finished + done.sum())

    def means(self):
        count = jnp.minimum(self.finished, WINDOW)
        return self.rows.sum(0) / jnp.maximum(count, 1)


# -- roll-out


def roll_out(config: Config, params, boards, episodes, key):
    observe_all = jax.vmap(snake.observe, in_axes=(None, 0))

    def advance_one(board, action, key):
        return snake.advance(config.rules, board, action, snake.random_draws(key))

    def step(carry, key):
        boards, episodes = carry
        choose, *draws = jax.random.split(key, 1 + config.num_envs)
        seen = observe_all(config.rules, boards)
        logits, value = policy.forward(config.net, params, seen)
        action = jax.random.categorical(choose, logits)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], 1)[:, 0]
        boards, outcome = jax.vmap(advance_one)(boards, action, jnp.stack(draws))
        # starving is no end of the return: what the policy expects of the last board goes on
        beyond = jax.lax.cond(
            outcome.truncated.any(),
            lambda: policy.forward(config.net, params, outcome.final_observation)[1],
            lambda: jnp.zeros_like(value),
        )
        reward = outcome.reward + jnp.where(outcome.truncated, config.gamma * beyond, 0)
        done = outcome.terminated | outcome.truncated
        kept = Transition(seen, action, log_prob, value, reward, done.astype(jnp.float32))
        return (boards, episodes.add(outcome, done)), kept

    keys = jax.random.split(key, config.horizon)
    (boards, episodes), batch = jax.lax.scan(step, (boards, episodes), keys)
    last_value = policy.forward(config.net, params, observe_all(config.rules, boards))[1]
    return boards, episodes, batch, last_value


# -- advantages


def advantages(config: Config, batch: Transition, last_value):
    def backwards(carry, t):
        advantage, next_value = carry
        going_on = 1 - t.done
        delta = t.reward + config.gamma * next_value * going_on - t.value
        advantage = delta + config.gamma * config.gae_lambda * going_on * advantage
        return (advantage, t.value), advantage

    start = (jnp.zeros_like(last_value), last_value)
    return jax.lax.scan(backwards, start, batch, reverse=True)[1]


# -- loss


def ppo_loss(config: Config, params, batch: Transition, advantage, target):
    logits, value = policy.forward(config.net, params, batch.observation)
    centred = advantage - advantage.mean()
    a = jnp.where(advantage.max() == advantage.min(), 0, centred / (advantage.std() + 1e-8))
    log_probs = jax.nn.log_softmax(logits)
    log_prob = jnp.take_along_axis(log_probs, batch.action[:, None], 1)[:, 0]
    log_ratio = log_prob - batch.log_prob
    ratio, c = jnp.exp(log_ratio), config.clip
    policy_loss = -jnp.minimum(ratio * a, jnp.clip(ratio, 1 - c, 1 + c) * a).mean()
    clipped = batch.value + jnp.clip(value - batch.value, -c, c)
    value_loss = 0.5 * jnp.maximum((value - target) ** 2, (clipped - target) ** 2).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    total = (
        policy_loss + config.value_coefficient * value_loss - config.entropy_coefficient * entropy
    )
    kl = (ratio - 1 - log_ratio).mean()
    share = (jnp.abs(ratio - 1) > c).mean()
    return total, jnp.stack((policy_loss, value_loss, entropy, kl, share))


LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


# -- update


def take_passes(config: Config, optimizer, params, state, batch, last_value, lr_factor, key):
    """`epochs` passes over the roll-out, in mini-batches."""
    advantage = advantages(config, batch, last_value)
    rows = (batch, advantage, advantage + batch.value)
    n = config.num_envs * config.horizon
    rows = jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), rows)

    def minibatch(carry, part):
        def step(params, state):
            gradient, losses = jax.grad(lambda p: ppo_loss(config, p, *part), has_aux=True)(params)
            updates, state = optimizer.update(gradient, state, params)
            updates = jax.tree.map(lambda u: lr_factor * u, updates)
            return optax.apply_updates(params, updates), state, losses

        # without any advantage there is no direction, only rounding noise
        params, state, losses = jax.lax.cond(
            part[1].any(), step, lambda p, s: (p, s, jnp.zeros(len(LOSSES))), *carry
        )
        return (params, state), losses

    def epoch(carry, key):
        order = jax.random.permutation(key, n).reshape(config.minibatches, -1)
        parts = jax.tree.map(lambda x: x[order], rows)
        return jax.lax.scan(minibatch, carry, parts)

    keys = jax.random.split(key, config.epochs)
    (params, state), losses = jax.lax.scan(epoch, (params, state), keys)
    return params, state, losses.mean((0, 1))


# -- training


def make_train(config: Config, optimizer, report=None):
    """A function of a key, to be jitted (or vmapped over keys): (params, metrics per update)."""

    def train(key):
        network_key, boards_key, key = jax.random.split(key, 3)
        params = policy.init(config.net, network_key)
        boards = jax.vmap(lambda k: snake.reset(config.rules, snake.random_draws(k)))(
            jax.random.split(boards_key, config.num_envs)
        )
        episodes = Episodes(jnp.zeros((WINDOW, 3)), jnp.int32(0))

        def update(carry, index):
            params, state, boards, episodes, key = carry
            key, roll, passes = jax.random.split(key, 3)
            boards, episodes, batch, last = roll_out(config, params, boards, episodes, roll)
            factor = 1 - index / config.updates  # the rates fall linearly
            params, state, losses = take_passes(
                config, optimizer, params, state, batch, last, factor, passes
            )
            returned, length, score = episodes.means()
            metrics = {
                "env_steps": (index + 1) * config.num_envs * config.horizon,
                "episodes": episodes.finished, "return_mean": returned, "score_mean": score,
                "episode_length": length, **dict(zip(LOSSES, losses, strict=True)),
            }  # fmt: skip
            if report is not None:
                jax.debug.callback(report, metrics, ordered=True)
            return (params, state, boards, episodes, key), metrics

        carry = (params, optimizer.init(params), boards, episodes, key)
        carry, metrics = jax.lax.scan(update, carry, jnp.arange(config.updates))
        return carry[0], metrics

    return train


def greedy_scores(config: Config, params, games: int, key):
    """Foods eaten in `games` greedy games."""

    def advance_one(board, action, key):
        return snake.advance(config.rules, board, action, snake.random_draws(key))

    def step(carry):
        boards, scores, key = carry
        key, now = jax.random.split(key)
        seen = jax.vmap(snake.observe, in_axes=(None, 0))(config.rules, boards)
        action = policy.forward(config.net, params, seen)[0].argmax(-1)
        boards, outcome = jax.vmap(advance_one)(boards, action, jax.random.split(now, games))
        ended = (outcome.terminated | outcome.truncated) & (scores < 0)
        return boards, jnp.where(ended, outcome.score, scores), key

    start, key = jax.random.split(key)
    boards = jax.vmap(lambda k: snake.reset(config.rules, snake.random_draws(k)))(
        jax.random.split(start, games)
    )
    unfinished = jnp.full(games, -1, jnp.int32)
    return jax.lax.while_loop(lambda c: (c[1] < 0).any(), step, (boards, unfinished, key))[1]


def make_optimizer(a: argparse.Namespace):
    if a.use_muon:
        return pion.jax.chain_with_muon(
            a.muon_lr, a.aux_adam_lr, a.max_grad_norm, a.muon_momentum, a.muon_nesterov,
            backend=a.backend,
        )  # fmt: skip
    return optax.chain(optax.clip_by_global_norm(a.max_grad_norm), optax.adam(a.lr, eps=1e-5))


def arguments(words=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add, choice = parser.add_argument, argparse.BooleanOptionalAction
    add("--use-muon", action=choice, default=False, help="matrices by Muon, the rest by Adam")
    add("--muon-lr", type=float, default=0.02, help="of matrices, with --use-muon")
    add("--aux-adam-lr", type=float, default=2.5e-4, help="of the rest, with --use-muon")
    add("--muon-momentum", type=float, default=0.95)
    add("--muon-nesterov", action=choice, default=True)
    add("--lr", type=float, default=2.5e-4, help="of Adam, without --use-muon")
    add("--max-grad-norm", type=float, default=0.5, help="global norm of the gradients")
    add("--total-timesteps", type=int, default=200_000, help="of all boards together")
    add("--d-model", type=int, default=64)
    add("--num-layers", type=int, default=1)
    add("--num-heads", type=int, default=4)
    add("--num-envs", type=int, default=64)
    add("--size", type=int, default=8, help="side of the board in cells")
    add("--seed", type=int, default=1)
    add("--eval-episodes", type=int, default=100, help="greedy games at the end")
    add("--backend", default="auto", choices=["auto", "kernels", "jnp"], help="of pion.jax")
    add("--out", type=pathlib.Path, help="directory for metrics.jsonl")
    add("--wandb", action=choice, default=False, help="log to Weights & Biases")
    given = parser.parse_args(words)
    unused = ["lr"] if given.use_muon else [n for n in vars(given) if n.startswith(("muon", "aux"))]
    for name in unused:  # an option is never ignored
        if getattr(given, name) != parser.get_default(name):
            relation = "goes without" if given.use_muon else "needs"
            parser.error(f"--{name.replace('_', '-')} {relation} --use-muon")
    for name in ("lr", "muon_lr", "aux_adam_lr"):
        if not getattr(given, name) >= 0:
            flag = f"--{name.replace('_', '-')}"
            parser.error(f"{flag} must be >= 0, got {getattr(given, name)}")
    return given


def main(words=None) -> float:
    a = arguments(words)
    rules = snake.Rules(height=a.size, width=a.size)
    net = policy.checked(
        policy.Network(
            a.size, a.size, rules.planes, d_model=a.d_model, num_layers=a.num_layers,
            num_heads=a.num_heads,
        )
    )  # fmt: skip
    config = Config(rules, net, a.total_timesteps, a.num_envs)
    if config.updates < 1:
        sys.exit(
            f"train_snake_purejaxrl: --total-timesteps must be at least one batch, "
            f"{a.num_envs * config.horizon}, got {a.total_timesteps}"
        )
    run = None
    if a.wandb:
        import wandb

        settings = {k: v for k, v in vars(a).items() if k != "out"}
        run = wandb.init(project="pion-snake", config=settings)
    file = None
    if a.out is not None:
        a.out.mkdir(parents=True, exist_ok=True)
        file = open(a.out / "metrics.jsonl", "w")  # noqa: SIM115

    def report(metrics):
        line = {k: float(v) for k, v in metrics.items()}
        if file is not None:
            print(json.dumps(line), file=file, flush=True)
        if run is not None:
            run.log(line, step=int(line["env_steps"]))
        index = int(line["env_steps"]) // (config.num_envs * config.horizon)
        if index % max(1, config.updates // 10) == 0:
            print(f"{int(line['env_steps']):8d} steps  score {line['score_mean']:6.2f}", flush=True)

    key = jax.random.key(a.seed)
    train = jax.jit(make_train(config, make_optimizer(a), report)).lower(key).compile()
    started = time.perf_counter()
    params, _ = jax.block_until_ready(train(key))
    seconds = time.perf_counter() - started
    scores = jax.jit(greedy_scores, static_argnums=(0, 2))(
        config, params, a.eval_episodes, jax.random.key(1_000_003)
    )
    steps = config.updates * config.num_envs * config.horizon
    summary = {
        "greedy_score_mean": float(scores.mean()), "greedy_score_max": int(scores.max()),
        "steps_per_second": steps / seconds, "seconds": seconds,
    }  # fmt: skip
    print(json.dumps(summary))
    if file is not None:
        print(json.dumps(summary), file=file)
        file.close()
    if run is not None:
        run.summary.update(summary)
        run.finish()
    return summary["greedy_score_mean"]


if __name__ == "__main__":
    main()
