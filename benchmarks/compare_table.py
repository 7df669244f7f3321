# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/results from a comparison, as Markdown.

    python benchmarks/compare_table.py runs/rlvr_arithmetic-compare

First the grid: the score of every rate, mean and standard deviation over the tuning seeds, with the root mean square of the
hidden matrices' updates in brackets. Then every measure at the tuned rates on fresh seeds.
"""

import argparse
import json
import statistics
from pathlib import Path


def spread(values: list[float], digits: int) -> str:
    """ "0.64 ± 0.02"; a single value stands alone."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def short(values: list[float]) -> str:
    """Three digits of what may be of any size."""
    mean = statistics.mean(values)
    if len(set(values)) == 1:
        return f"{mean:.3g}"
    if mean and abs(mean) < 1e-3:
        return f"{mean:.1e} ± {statistics.stdev(values):.0e}"
    return spread(values, 3 if abs(mean) < 10 else 1)


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [row(head), row(["---"] + ["---:"] * (len(head) - 1)), *map(row, rows)]
    return "\n".join(lines)


def grid(comparison: dict) -> str:
    names = comparison["optimizers"]
    rates = sorted({rate for each in comparison["grid"].values() for rate in each})
    rows = []
    for rate in rates:
        cells = [f"{rate:g}"]
        for name in names:
            runs = [
                run
                for run in comparison["runs"]
                if (run["optimizer"], run["lr"], run["phase"]) == (name, rate, "tune")
            ]
            if not runs:
                cells.append("")
                continue
            sizes = [run["metrics"].get("update_rms") for run in runs]
            size = statistics.mean(sizes) if None not in sizes else 0
            best = "**" if comparison["best"].get(name) == rate and len(rates) > 1 else ""
            score = spread([run["score"] for run in runs], 3)
            cells.append(f"{best}{score}{best} [{size:.1e}]" if size else f"{best}{score}{best}")
        if any(cells[1:]):  # a single rate needs no tuning
            rows.append(cells)
    return table([comparison["lr_key"], *names], rows)


def finals(comparison: dict) -> str:
    names = comparison["optimizers"]
    runs = {
        name: [
            run
            for run in comparison["runs"]
            if run["optimizer"] == name and run["phase"] == "final"
        ]
        for name in names
    }
    rows = [["rate", *(f"{comparison['best'][name]:g}" for name in names)]]
    rows.append([comparison["score"], *(spread([r["score"] for r in runs[n]], 3) for n in names)])
    for column in comparison["columns"]:
        values = {
            name: [
                run["metrics"][column["metric"]]
                for run in runs[name]
                if column["metric"] in run["metrics"]
            ]
            for name in names
        }
        if any(values.values()):
            rows.append([column["title"], *(short(values[n]) if values[n] else "" for n in names)])
    return table([f"{len(runs[names[0]])} fresh seeds", *names], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path, help="folder of pion compare")
    folder = parser.parse_args().comparison
    comparison = json.loads((folder / "compare.json").read_text())
    print(grid(comparison), finals(comparison), sep="\n\n")


if __name__ == "__main__":
    main()
