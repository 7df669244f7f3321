# SPDX-License-Identifier: Apache-2.0
"""Snake as JAX functions of one board, for vmap: the rules of lab/envs/snake.h.

tests/jax/jax_snake_test.py plays both, step by step. Random numbers are another generator's: what is
drawn, the rank of a free cell and of a heading, is an argument of reset and advance.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

ROW_STEP, COL_STEP = (-1, 0, 1, 0), (0, 1, 0, -1)  # up, right, down, left


class Rules(NamedTuple):
    """Names and meaning of SnakeOptions."""

    height: int = 8
    width: int = 8
    start_length: int = 2
    starvation_steps: int = 0  # 0: twice the cells
    food_reward: float = 1.0
    death_reward: float = -1.0
    win_reward: float = 0.0
    step_reward: float = 0.0
    approach_reward: float = 0.0
    hints: bool = True

    @property
    def cells(self) -> int:
        return self.height * self.width

    @property
    def planes(self) -> int:
        return 15 if self.hints else 9

    @property
    def patience(self) -> int:
        return self.starvation_steps or 2 * self.cells


class Board(NamedTuple):
    ages: jax.Array  # (cells) steps until the cell is free if nothing is eaten; 0: free now
    head: jax.Array  # cell
    length: jax.Array
    heading: jax.Array
    food: jax.Array  # cell, -1: none
    hungry: jax.Array  # steps since the last food
    score: jax.Array
    steps: jax.Array
    returned: jax.Array  # rewards so far


class Outcome(NamedTuple):
    """Of one step; what stands behind `truncated` holds where the episode ended."""

    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    won: jax.Array
    final_observation: jax.Array
    score: jax.Array
    episode_length: jax.Array
    episode_return: jax.Array


class Draws(NamedTuple):
    """Functions from a number of choices to one of them, counted from 0."""

    food: callable  # after eating: among the free cells
    heading: callable  # of a new snake: among those that have room
    first_food: callable


def random_draws(key: jax.Array) -> Draws:
    keys = jax.random.split(key, 3)
    return Draws(*(lambda n, k=k: jax.random.randint(k, (), 0, n) for k in keys))


def _free_cell(ages, rank):
    """The free cell with `rank` free ones before it; -1 if there is none."""
    free = ages == 0
    cell = jnp.argmax(free & (jnp.cumsum(free) == rank + 1))
    return jnp.where(free.any(), cell, -1).astype(jnp.int32)


def reset(rules: Rules, draws: Draws) -> Board:
    height, width, length = rules.height, rules.width, rules.start_length
    room = [d for d in range(4) if length <= (height if ROW_STEP[d] else width)]
    starts = []
    for d in room:  # the head in the middle, or as near to it as leaves room for the body
        row, col, back = height // 2, width // 2, (-ROW_STEP[d], -COL_STEP[d])
        row = min(row, height - length) if back[0] > 0 else row
        row = max(row, length - 1) if back[0] < 0 else row
        col = min(col, width - length) if back[1] > 0 else col
        col = max(col, length - 1) if back[1] < 0 else col
        body = [(row + i * back[0]) * width + col + i * back[1] for i in range(length)]
        ages = jnp.zeros(rules.cells, jnp.int32)
        starts.append((ages.at[jnp.array(body)].set(jnp.arange(length, 0, -1, jnp.int32)), body[0]))
    chosen = draws.heading(len(room))
    ages = jnp.stack([ages for ages, _ in starts])[chosen]
    zero = jnp.int32(0)
    return Board(
        ages=ages,
        head=jnp.array([head for _, head in starts], jnp.int32)[chosen],
        length=jnp.int32(length),
        heading=jnp.array(room, jnp.int32)[chosen],
        food=_free_cell(ages, draws.first_food(rules.cells - length)),
        hungry=zero, score=zero, steps=zero, returned=jnp.float32(0),
    )  # fmt: skip


def _neighbours(rules: Rules, cell):
    """(4) cells next to `cell`, and whether they lie on the board."""
    row = cell // rules.width + jnp.array(ROW_STEP)
    col = cell % rules.width + jnp.array(COL_STEP)
    inside = (row >= 0) & (row < rules.height) & (col >= 0) & (col < rules.width)
    return jnp.where(inside, row * rules.width + col, 0), inside


def _blocked(rules: Rules, board: Board):
    """(4) whether a step there hits a wall or the body; the tail's cell is left meanwhile."""
    cells, inside = _neighbours(rules, board.head)
    return ~inside | (board.ages[cells] > 1)


def observe(rules: Rules, board: Board) -> jax.Array:
    """(cells, planes), see SnakePlane in lab/envs/snake.h."""
    cells = jnp.arange(rules.cells)
    at_head, ages = cells == board.head, board.ages
    planes = [ages > 0, at_head, cells == board.food, ages == 1, ages / rules.cells]
    planes += [at_head & (board.heading == d) for d in range(4)]
    if rules.hints:
        blocked = _blocked(rules, board)
        planes += [at_head & blocked[d] for d in range(4)]
        rows = (board.food // rules.width - board.head // rules.width) / rules.height
        cols = (board.food % rules.width - board.head % rules.width) / rules.width
        planes += [jnp.where(at_head & (board.food >= 0), x, 0.0) for x in (rows, cols)]
    return jnp.stack([p.astype(jnp.float32) for p in planes], -1)


def _distance(rules: Rules, head, food):
    rows = jnp.abs(head // rules.width - food // rules.width)
    return rows + jnp.abs(head % rules.width - food % rules.width)


def advance(rules: Rules, board: Board, action, draws: Draws) -> tuple[Board, Outcome]:
    """One step; the board that is returned is a new one where the episode ended."""
    reversing = (board.length > 1) & ((action ^ board.heading) == 2)
    heading = jnp.where(reversing, board.heading, action).astype(jnp.int32)
    dead = _blocked(rules, board)[heading]
    cell = _neighbours(rules, board.head)[0][heading]
    eats = ~dead & (cell == board.food)

    length = board.length + eats
    left = jnp.where(eats, board.ages, jnp.maximum(board.ages - 1, 0))
    ages = jnp.where(dead, board.ages, left.at[cell].set(length))
    head = jnp.where(dead, board.head, cell)
    won = eats & (length == rules.cells)
    next_food = _free_cell(ages, draws.food(jnp.maximum(rules.cells - length, 1)))
    moved = Board(
        ages, head.astype(jnp.int32), length, heading, jnp.where(eats, next_food, board.food),
        jnp.where(eats, 0, board.hungry + 1), board.score + eats, board.steps + 1, board.returned,
    )  # fmt: skip

    nearer = _distance(rules, board.head, board.food) - _distance(rules, head, board.food)
    alive = jnp.where(
        eats, rules.food_reward + won * rules.win_reward, rules.approach_reward * nearer
    )
    reward = rules.step_reward + jnp.where(dead, rules.death_reward, alive)
    reward = reward.astype(jnp.float32)
    moved = moved._replace(returned=board.returned + reward)
    terminated = dead | won
    truncated = ~terminated & (moved.hungry >= rules.patience)
    outcome = Outcome(
        reward, terminated, truncated, won, observe(rules, moved), moved.score, moved.steps,
        moved.returned,
    )  # fmt: skip
    done = terminated | truncated
    fresh = reset(rules, draws)
    return jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, moved), outcome
