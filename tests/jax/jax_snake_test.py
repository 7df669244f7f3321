# SPDX-License-Identifier: Apache-2.0
"""Snake in JAX against the C++ environment, step by step, and its random draws."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import snake_jax as snake

BINARY = (
    pathlib.Path(os.environ.get("PION_BINARY", ROOT / "build/release/apps/pion")).parent.parent
    / "lab/envs/snake_replay"
)
needs_binary = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")
STEPS, BOARDS = 300, 6


def given(rank):
    return lambda choices: rank


def cell(rules, place):
    return place[0] * rules.width + place[1] if place[0] >= 0 else -1


def drawn_food(rules, frame):
    """The rank of the food among the free cells of that frame; 0 if there is none."""
    body = {cell(rules, c) for c in frame["snake"]}
    return sum(c not in body for c in range(max(cell(rules, frame["food"]), 0)))


def drawn_heading(rules, observation):
    """The rank of the heading among those that have room for a new snake."""
    heading = int(observation.reshape(rules.cells, rules.planes)[:, 5:9].sum(0).argmax())
    length = rules.start_length
    return sum(
        length <= (rules.height if snake.ROW_STEP[d] else rules.width) for d in range(heading)
    )


def ranks(rules, line):
    """(boards, 3): what a board drew if it ate, or if it was reset, to come to this line."""
    seen = numpy.array(line["observations"]).reshape(len(line["frames"]), -1)
    return numpy.array(
        [
            (drawn_food(rules, f), drawn_heading(rules, o), drawn_food(rules, f))
            for f, o in zip(line["frames"], seen, strict=True)
        ]
    )


def chase(rules, frames, rng):
    """Mostly towards the food, so that boards fill up; else at random, so that snakes die."""
    actions = []
    for f in frames:
        head, food = f["snake"][0], f["food"]
        rows, cols = food[0] - head[0], food[1] - head[1]
        options = [2 if rows > 0 else 0] * (rows != 0) + [1 if cols > 0 else 3] * (cols != 0)
        if not options or rng.random() < 0.15:
            options = range(4)
        actions.append(int(rng.choice(list(options))))
    return actions


def played(rules, seed):
    """What the C++ environment does, and the actions that it was given."""
    rng = numpy.random.default_rng(seed)
    process = subprocess.Popen(
        [BINARY, f"environments={BOARDS}", "seed=5"]
        + [f"{k}={float(v):g}" for k, v in rules._asdict().items()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines, actions = [json.loads(process.stdout.readline())], []
    for _ in range(STEPS):
        actions.append(chase(rules, lines[-1]["frames"], rng))
        process.stdin.write(" ".join(map(str, actions[-1])) + "\n")
        process.stdin.flush()
        lines.append(json.loads(process.stdout.readline()))
    process.stdin.close()
    assert process.wait(10) == 0
    return lines, actions


RULES = [
    snake.Rules(height=8, width=8),
    snake.Rules(2, 3, 1, 0, 1.0, -1.0, 4.0, -0.125, 0.25, True),  # wins, snakes of one cell
    snake.Rules(3, 2, 2, 5, 2.0, -0.5, 1.0, 0.0, 0.5, False),
    snake.Rules(4, 9, 7, 12, 1.0, -1.0, 0.0, 0.5, -0.25, True),  # room in two directions only
]


@needs_binary
@pytest.mark.parametrize("rules", RULES, ids=lambda r: f"{r.height}x{r.width}")
def test_both_play_the_same_game(rules):
    lines, actions = played(rules, 3)

    @jax.jit
    @jax.vmap
    def start(drawn):
        board = snake.reset(rules, snake.Draws(given(drawn[0]), given(drawn[1]), given(drawn[2])))
        return board, snake.observe(rules, board)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0))
    def step(board, action, drawn):
        draws = snake.Draws(given(drawn[0]), given(drawn[1]), given(drawn[2]))
        board, outcome = snake.advance(rules, board, action, draws)
        return board, snake.observe(rules, board), outcome

    boards, seen = start(ranks(rules, lines[0]))
    ended = numpy.zeros(3, int)  # deaths, wins, starvations
    for before, line, action in zip(lines, lines[1:], actions, strict=False):
        # ages and offsets are quotients, rounded once on either side
        assert numpy.allclose(seen.ravel(), before["observations"], rtol=2.0**-23, atol=0)
        boards, seen, outcome = step(boards, jnp.array(action), ranks(rules, line))
        for name in ("terminated", "truncated"):
            assert numpy.asarray(getattr(outcome, name)).tolist() == line[name], name
        assert numpy.array_equal(outcome.reward, numpy.float32(line["rewards"]))
        done = numpy.asarray(outcome.terminated | outcome.truncated)
        for ours, theirs in (
            (outcome.score, "scores"), (outcome.episode_length, "episode_lengths"),
            (outcome.episode_return, "episode_returns"), (outcome.won, "wins"),
        ):  # fmt: skip
            assert numpy.array_equal(numpy.asarray(ours)[done], numpy.array(line[theirs])[done])
        final = numpy.array(line["final_observations"]).reshape(BOARDS, -1)[done]
        found = numpy.asarray(outcome.final_observation).reshape(BOARDS, -1)[done]
        assert numpy.allclose(found, final, rtol=2.0**-23, atol=0)
        wins = int(numpy.asarray(outcome.won).sum())
        ended += [int(outcome.terminated.sum()) - wins, wins, int(outcome.truncated.sum())]
    assert ended.sum() > 10 and ended[0] > 0  # episodes ended in what is compared
    if rules.cells == 6:
        assert ended[1] > 0
    if rules.starvation_steps:
        assert ended[2] > 0


def test_food_and_headings_are_drawn_evenly():
    rules = snake.Rules(height=3, width=4)
    boards = jax.vmap(lambda k: snake.reset(rules, snake.random_draws(k)))(
        jax.random.split(jax.random.key(0), 8000)
    )
    assert not bool(jnp.take_along_axis(boards.ages, boards.food[:, None], 1).any())
    counts = numpy.bincount(numpy.asarray(boards.heading), minlength=4)
    # five standard deviations of a binomial count
    assert numpy.abs(counts - 2000).max() <= 5 * (8000 * 0.25 * 0.75) ** 0.5
    for heading in range(4):
        food = numpy.asarray(boards.food)[numpy.asarray(boards.heading) == heading]
        ages = numpy.asarray(boards.ages)[numpy.asarray(boards.heading) == heading][0]
        free = numpy.bincount(food, minlength=12)[ages == 0]
        share = len(food) / 10
        assert numpy.abs(free - share).max() <= 5 * share**0.5
