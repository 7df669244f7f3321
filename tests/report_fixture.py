# SPDX-License-Identifier: Apache-2.0
"""Made-up run directories in the format of `pion train` and `pion compare`, for the report's tests.

The numbers are drawn from a seeded generator; only their shape resembles training.
"""

import json
import math
import random
from pathlib import Path

BEST = {"adamw": 1e-3, "muon": 1e-2, "pion": 2e-2}
CEILING = {"adamw": 7.1, "muon": 6.8, "pion": 7.9}
LAYERS = [
    f"layers.{layer}.{part}.weight"
    for layer in range(3)
    for part in (
        "attention.q_proj",
        "attention.k_proj",
        "attention.v_proj",
        "attention.o_proj",
        "mlp.up",
        "mlp.down",
    )
]


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def snake_sample(rng: random.Random, score: int) -> dict:
    """A snake that walks the columns of a 10 x 10 board and eats every dozen moves."""
    path = [(r if c % 2 == 0 else 9 - r, c) for c in range(10) for r in range(10)] * 2
    frames, length = [], 3
    for move in range(3, min(len(path), 12 * score + 3)):
        length = 3 + move // 12
        body = [list(path[i]) for i in range(move, max(-1, move - length), -1)]
        frames.append(
            {"snake": body, "food": [rng.randrange(10), rng.randrange(10)], "score": length - 3}
        )
    return {"kind": "snake_game", "board": [10, 10], "frames": frames}


def parameter_rows(optimizer: str, progress: float, rng: random.Random) -> list[dict]:
    rows = []
    for i, name in enumerate(LAYERS):
        passed = {"adamw": None, "muon": 62, "pion": 4 + 30 * math.exp(-3 * progress) + i % 6}[
            optimizer
        ]
        rms = {"adamw": 0.9, "muon": 0.2, "pion": 0.06 + 0.01 * (i % 6)}[optimizer] * (
            1.1 - progress
        )
        rows.append({
            "name": name, "rule": optimizer, "update_rms": rms * rng.uniform(0.9, 1.1),
            "directions_passed": passed or 0, "directions": 64 if passed else 0,
            "stable_rank": 3 + 9 * math.exp(-2 * progress) * rng.uniform(0.9, 1.1) + (i % 6),
            "sigma_max": 0.1, "energy_kept": min(1.0, 0.5 + passed / 130) if passed else 0,
            "head_spread": 1.2, "gradient_norm": 0.4, "skipped": 2 if i == 5 and optimizer == "muon" else 0,
        })  # fmt: skip
    return rows


def metric_lines(optimizer: str, seed: int, updates: int, level: float) -> list[dict]:
    rng = random.Random(f"{optimizer} {seed} {level:.6f}")
    lines = [
        {
            "kind": "evaluation",
            "step": 0,
            "final": False,
            "metrics": {"score_mean": 0.2, "length_mean": 3.2},
        }
    ]
    speed = {"adamw": 3.0, "muon": 4.0, "pion": 5.0}[optimizer]
    for step in range(1, updates + 1):
        progress = step / updates
        value = level * (1 - math.exp(-speed * progress)) + rng.gauss(0, 0.25)
        lines.append({
            "kind": "update", "step": step, "wall_seconds": 0.11 * step * rng.uniform(0.99, 1.01), "lr_factor": 1 - progress,
            "metrics": {"env_steps": 2048 * step, "return_mean": value, "length_mean": 20 * value + 5,
                        "value_loss": 0.9 * math.exp(-4 * progress) + 0.003, "entropy": 1.3 - 0.9 * progress,
                        "gradient_norm": 0.5},
        })  # fmt: skip
        if step % 10 == 0:
            lines.append(
                {
                    "kind": "optimizer",
                    "step": step,
                    "parameters": parameter_rows(optimizer, progress, rng),
                }
            )
        if step % (updates // 4) == 0:
            lines.append(
                {
                    "kind": "evaluation",
                    "step": step,
                    "final": step == updates,
                    "metrics": {"score_mean": value, "length_mean": 9.0, "random_score_mean": 0.16},
                }
            )
    if optimizer == "pion":
        lines.insert(
            30,
            {
                "kind": "warning",
                "step": 12,
                "message": "layers.0.mlp.up.weight: the update was empty for 10 steps; lower optimizer.matrices.cutoff",
            },
        )
    return lines


def routing_toml(optimizer: str) -> str:
    parts = [f'version = 1\n\n[rules.{optimizer}]\nrule = "{optimizer}"\nlr = {BEST[optimizer]}\n']
    if optimizer != "adamw":
        parts.append('[rules.adamw]\nrule = "adamw"\nlr = 3e-4\n')
    parts.append(
        '[[parameters]]\nname = "embedding.weight"\nshape = [128, 64]\nrole = "embedding"\nrule = "adamw"\nreason = "module Embedding"\n'
    )
    for name in LAYERS:
        heads = 4 if "attention" in name else 1
        parts.append(
            f'[[parameters]]\nname = "{name}"\nshape = [64, 64]\nrole = "hidden matrix"\nrule = "{optimizer}"\naxis = 0\nsizes = [64]\nheads = [{heads}]\nreason = "module Linear"\n'
        )
    return "\n".join(parts)


def write_run(
    directory: Path,
    optimizer: str,
    lr: float,
    seed: int,
    updates: int = 600,
    score: float | None = 7.0,
    status: str = "complete",
) -> None:
    directory.mkdir(parents=True)
    level = score if score is not None else 2.0
    write_lines(directory / "metrics.jsonl", metric_lines(optimizer, seed, updates, level))
    recipe = f'task = "snake"\nseed = {seed}\nsteps = 1_000_000\n\n[optimizer.matrices]\nrule = "{optimizer}"\nlr = {lr}\n\n[optimizer.rest]\nrule = "adamw"\nlr = 3e-4\n\n[ppo]\nclip = 0.2\ngae_lambda = 0.95\n'
    (directory / "recipe.toml").write_text(recipe)
    (directory / "routing.toml").write_text(routing_toml(optimizer))
    environment = {
        "versions": {"pion": "0.1.0", "torch": "2.13.0"},
        "cpu": "Example CPU </script> 2.4 GHz",
        "threads": 2,
        "commit": "0123abc",
        "command": f"pion train snake --seed {seed}",
    }
    (directory / "environment.json").write_text(json.dumps(environment))
    (directory / "sample.json").write_text(
        json.dumps(snake_sample(random.Random(seed), int(level)))
    )
    if status != "unfinished":
        result = {
            "status": status,
            "score": score,
            "score_name": "score_mean",
            "metrics": {"score_mean": score},
            "columns": [
                {"metric": "return_mean", "title": "return"},
                {"metric": "absent", "title": "never measured"},
            ],
            "measures": {"return_mean": 12.5},
            "wall_seconds": 0.11 * updates,
        }
        (directory / "result.json").write_text(json.dumps(result))


def tune_score(optimizer: str, factor: float, rng: random.Random) -> float | None:
    if optimizer == "muon" and factor > 1:
        return None  # diverged
    return CEILING[optimizer] - 1.5 * abs(math.log10(factor)) + rng.gauss(0, 0.15)


def write_comparison(directory: Path, updates: int = 600, seeds: int = 3) -> None:
    """Three optimizers, three rates and seeds; Muon's highest rate fails, one seed stops early."""
    rng = random.Random(7)
    runs, grid = [], {}
    for optimizer, best in BEST.items():
        factors = (
            (0.1, 0.32, 1.0) if optimizer == "adamw" else (0.32, 1.0, 3.2)
        )  # AdamW: at the edge
        grid[optimizer] = [best * factor for factor in factors]
        for factor in factors:
            for seed in range(101, 104):
                score = tune_score(optimizer, factor, rng)
                error = {"error": "PPO: the loss must be finite, got nan"} if score is None else {}
                runs.append({"dir": f"{optimizer}-{best * factor:.3g}-{seed}", **error, "optimizer": optimizer, "lr": best * factor, "seed": seed,
                             "phase": "tune", "status": "failed" if score is None else "complete", "score": score, "wall_seconds": 66.0})  # fmt: skip
        for seed in range(1, seeds + 1):
            score = CEILING[optimizer] + rng.gauss(0, 0.12)
            name = f"{optimizer}-{best:.3g}-{seed}"
            length = updates // 2 if (optimizer, seed) == ("muon", 2) else updates
            write_run(directory / name, optimizer, best, seed, length, score)
            runs.append(
                {
                    "dir": name,
                    "optimizer": optimizer,
                    "lr": best,
                    "seed": seed,
                    "phase": "final",
                    "status": "complete",
                    "score": score,
                    "wall_seconds": 0.11 * length,
                }
            )
    summary = {
        "recipe": "snake_ppo", "task": "snake", "score": "score_mean", "higher_is_better": True,
        "command": "pion compare lab/recipes/snake_ppo.toml --optimizers adamw,muon,pion --seeds 3 --threads 2",
        "optimizers": list(BEST), "lr_key": "optimizer.matrices.lr", "grid": grid, "tune_seeds": [101, 102, 103],
        "seeds": list(range(1, seeds + 1)), "best": BEST, "runs": runs,
    }  # fmt: skip
    (directory / "compare.json").write_text(json.dumps(summary))


def write_regression(directory: Path) -> None:
    """A control task: lower is better, losses over decades, no game, steps without env_steps."""
    rng = random.Random(3)
    runs = []
    for optimizer, floor in (("sgd", 3e-3), ("muon", 1e-3), ("pion", 2e-4)):
        for seed in (1, 2):
            run = directory / f"{optimizer}-{seed}"
            run.mkdir(parents=True)
            lines = []
            for step in range(1, 301):
                loss = (floor + math.exp(-step / 25)) * rng.uniform(0.9, 1.1)
                lines.append(
                    {
                        "kind": "update",
                        "step": step,
                        "wall_seconds": 0.01 * step,
                        "lr_factor": 1.0,
                        "metrics": {"loss": loss, "excess_loss": loss},
                    }
                )
            write_lines(run / "metrics.jsonl", lines)
            runs.append(
                {
                    "dir": run.name,
                    "optimizer": optimizer,
                    "lr": 0.01,
                    "seed": seed,
                    "phase": "final",
                    "status": "complete",
                    "score": floor * rng.uniform(0.9, 1.1),
                    "wall_seconds": 3.0,
                }
            )
    summary = {"recipe": "planted_low_rank", "task": "low_rank", "score": "excess_loss", "higher_is_better": False, "command": "pion compare planted_low_rank",
               "optimizers": ["sgd", "muon", "pion"], "lr_key": "optimizer.matrices.lr", "grid": {}, "seeds": [1, 2], "best": {"sgd": 0.01, "muon": 0.01, "pion": 0.01}, "runs": runs}  # fmt: skip
    (directory / "compare.json").write_text(json.dumps(summary))


def answers_sample(rng: random.Random, skill: float) -> dict:
    """Sums, answered before and after training: right, wrong, and right without the box."""
    items = []
    for i in range(8):
        a, b = 10 + 7 * i % 80, 11 + 13 * i % 70
        right = f"{a}+{b}={a + b},\\boxed{{{a + b}}}"
        wrong = f"{a}+{b}={a + b - 10},\\boxed{{{a + b - 10}}}"
        bare = f"{a}+{b}={a + b}"
        before = {"text": wrong, "correct": False, "formatted": True, "right_unformatted": False}
        if i % 3 == 0:
            before = {"text": bare, "correct": False, "formatted": False, "right_unformatted": True}
        after = dict(before)
        if rng.random() < skill:
            after = {"text": right, "correct": True, "formatted": True, "right_unformatted": False}
        items.append(
            {"prompt": f"{a}+{b}:", "reference": str(a + b), "before": before, "after": after}
        )
    return {"kind": "answers", "items": items}


def language_lines(rng: random.Random, updates: int, level: float) -> list[dict]:
    lines = []
    for step in range(updates + 1):
        reward = 0.45 + level * step / updates + rng.gauss(0, 0.03)
        if step:
            metrics = {"reward_mean": reward, "loss": rng.gauss(0, 0.01), "entropy": 0.1}
            lines.append(
                {"kind": "update", "step": step, "wall_seconds": 0.5 * step, "metrics": metrics}
            )
        if step % 10 == 0:
            metrics = {
                "accuracy": reward + 0.1,
                "sampled_accuracy": reward,
                "format_rate": 0.9 + 0.1 * step / updates,
                "right_unformatted_rate": 0.05 * (1 - step / updates),
            }
            lines.append({"kind": "evaluation", "step": step, "metrics": metrics})
            parameters = [
                {"name": "model.embed_tokens.weight", "rule": "sgd", "update_rms": 1e-6},
                {"name": LAYERS[0], "rule": "pion", "update_rms": 1e-5 * rng.uniform(1, 2)},
            ]
            if step:
                lines.append({"kind": "optimizer", "step": step, "parameters": parameters})
    return lines


def write_language(directory: Path) -> None:
    """Reinforcement learning of a language model: answers, columns, and what curves hide."""
    rng = random.Random(11)
    best = {"adamw": 3e-5, "muon": 1e-4, "pion": 1e-4}
    columns = [
        {"metric": "reward_mean", "title": "reward mean"},
        {"metric": "format_rate", "title": "format rate"},
        {"metric": "nowhere", "title": "never measured"},
        {"metric": "loss", "title": "loss"},
    ]
    runs = []
    for optimizer, lr in best.items():
        for seed in (1, 2, 3):
            level = 0.2 + 0.02 * rng.random()
            run = directory / f"{optimizer}-{seed}"
            run.mkdir(parents=True)
            write_lines(run / "metrics.jsonl", language_lines(rng, 60, level))
            (run / "sample.json").write_text(json.dumps(answers_sample(rng, level + 0.4)))
            metrics = {"reward_mean": 0.45 + level, "format_rate": 0.99, "loss": -1e-3}
            runs.append({"dir": run.name, "optimizer": optimizer, "lr": lr, "seed": seed, "phase": "final", "status": "complete",
                         "score": 0.55 + level, "wall_seconds": 30.0, "metrics": metrics})  # fmt: skip
    summary = {"recipe": "rlvr_arithmetic", "task": "rlvr", "score": "accuracy", "higher_is_better": True, "command": "pion compare rlvr_arithmetic",
               "optimizers": list(best), "lr_key": "optimizer.matrices.lr", "grid": {}, "seeds": [1, 2, 3], "best": best, "columns": columns, "runs": runs}  # fmt: skip
    (directory / "compare.json").write_text(json.dumps(summary))
