# SPDX-License-Identifier: Apache-2.0
"""From a line of metrics.jsonl to what trackers take: numbers by name, and texts."""

import json

# update metrics -> train/..., evaluations -> eval/..., per-matrix statistics -> optimizer/...
PREFIXES = {"update": "train", "evaluation": "eval"}


def statistics_scalars(parameters):
    """{"optimizer/update_rms/layers.0.weight": 1e-3} of an optimizer's statistics, one a parameter.
    Of a stack "optimizer/idle/experts" and, for each of its matrices, ".../experts.3"."""
    parameters = [
        one
        for each in parameters
        for one in (
            each,
            *(
                {**matrix, "name": f"{each.get('name', '')}.{number}"}
                for number, matrix in enumerate(each.get("matrices", []))
            ),
        )
    ]
    return {
        f"optimizer/{key}/{each.get('name', '')}": value
        for each in parameters
        for key, value in each.items()
        if key not in ("name", "rule", "matrices")
    }


def scalars(line):
    """(step, {"train/return_mean": 1.5}, {"warning": "..."}) of one line.

    NaN, Inf (null in the file) and texts among the metrics are left out. A line that is no JSON
    object gives (0, {}, {}).
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return 0, {}, {}
    if not isinstance(record, dict):
        return 0, {}, {}
    kind = record.get("kind")
    step = record.get("step", 0)
    values, texts = {}, {}
    if kind in PREFIXES:
        prefix = PREFIXES[kind]
        values = {f"{prefix}/{name}": value for name, value in record.get("metrics", {}).items()}
        for name in ("lr_factor", "wall_seconds"):
            if name in record:
                values[f"{prefix}/{name}"] = record[name]
    elif kind == "optimizer":
        values = statistics_scalars(record.get("parameters", []))
    elif kind == "warning":
        texts["warning"] = str(record.get("message", ""))
    numbers = {
        name: float(value) for name, value in values.items() if isinstance(value, (int, float))
    }
    return int(step) if isinstance(step, (int, float)) else 0, numbers, texts
