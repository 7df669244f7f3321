# SPDX-License-Identifier: Apache-2.0
"""Draws the learning curves of a comparison as SVG or PNG, for pages such as docs/results.

Usage: .venv/bin/python lab/report/picture.py runs/snake_ppo-compare docs/results/snake.svg

The first argument is a run or comparison directory with a report.html, or such a page; its numbers
are drawn as they are. --metric and --axis choose as the page's controls do ("--axis wall_seconds").
"""

import argparse
import json
import re
import sys
from pathlib import Path

# the page's light colours, lab/report/page/theme.js
COLOURS = {"adamw": "#0072b2", "muon": "#008060", "pion": "#d0480b", "sgd": "#b0448a",
           "low_rank_muon": "#8a6d00", "low_pass_muon": "#5b55d0"}  # fmt: skip
GREY = "#57606a"


def fail(message: str) -> None:
    sys.exit(f"picture.py: {message}")


def read_report(path: Path) -> dict:
    page = path / "report.html" if path.is_dir() else path
    if not page.is_file():
        fail(f"a report must exist, got no {page}; write it with: pion report {path}")
    found = re.search(
        r'<script type="application/json" id="report-data">(.*?)</script>',
        page.read_text("utf-8"),
        re.DOTALL,
    )
    if not found:
        fail(f"the page must be a report of pion, got {page}")
    try:
        return json.loads(found.group(1))
    except (ValueError, RecursionError) as error:
        fail(f"the page's data must be JSON, got {page}: {error}")


def choose(kind: str, wanted: str | None, entries: list[dict], fallback: str) -> dict:
    keys = [entry["key"] for entry in entries]
    key = wanted or fallback
    if key not in keys:
        fail(f"--{kind} must be one of {', '.join(keys)}, got {key!r}")
    return entries[keys.index(key)]


def log_scale(series: list[dict]) -> bool:
    low, high = min(min(one["low"]) for one in series), max(max(one["high"]) for one in series)
    falls = all(one["mean"][-1] < one["mean"][0] for one in series)
    return low > 0 and falls and high / low > 50  # as the page decides


def specification(report: dict, series: list[dict], metric: str, axis: str) -> dict:
    labels = {row["key"]: row["label"] for row in report["optimizers"]}
    present = [key for key in labels if any(one["optimizer"] == key for one in series)]
    free = [COLOURS[key] for key in COLOURS if key not in labels]
    spare = iter([*free, GREY] * len(present))
    colours = [COLOURS.get(key) or next(spare) for key in present]
    rows = [
        {"optimizer": labels[one["optimizer"]], "x": x, "mean": mean, "low": low, "high": high}
        for one in series
        for x, mean, low, high in zip(one["x"], one["mean"], one["low"], one["high"])
    ]
    scale = {"type": "log", "nice": False} if log_scale(series) else {"zero": False}
    x = {"field": "x", "type": "quantitative", "title": axis, "scale": {"nice": False},
         "axis": {"format": "~s", "grid": False, "tickCount": 6}}  # fmt: skip
    y = {
        "type": "quantitative",
        "title": metric,
        "scale": scale,
        "axis": {"tickCount": 6, "format": "~g"},
    }
    color = {"field": "optimizer", "type": "nominal", "title": None,
             "scale": {"domain": [labels[key] for key in present], "range": colours},
             "legend": {"orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3, "symbolOpacity": 1, "labelFontSize": 13}}  # fmt: skip
    title = {"text": report["outcome"]["headline"], "subtitle": report["outcome"]["numbers"].split("; ")[0], "anchor": "start",
             "fontSize": 16, "subtitleFontSize": 12, "subtitleColor": "#5a6370", "offset": 12}  # fmt: skip
    return {
        "width": 720, "height": 320, "background": "white", "padding": 16, "title": title,
        "data": {"values": rows}, "encoding": {"color": color},
        "config": {"font": "DejaVu Sans, Helvetica, Arial, sans-serif", "view": {"stroke": None},
                   "axis": {"gridColor": "#dfe3e8", "domainColor": "#dfe3e8", "tickColor": "#dfe3e8",
                            "labelColor": "#5a6370", "titleColor": "#5a6370", "titleFontWeight": "normal"}},
        "layer": [
            {"mark": {"type": "area", "opacity": 0.17},
             "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"mark": {"type": "line", "strokeWidth": 2.25}, "encoding": {"x": x, "y": {**y, "field": "mean"}}},
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path, help="ends in .svg or .png")
    parser.add_argument("--metric")
    parser.add_argument("--axis")
    arguments = parser.parse_args()
    if arguments.picture.suffix not in (".svg", ".png"):
        fail(f"the picture must end in .svg or .png, got {arguments.picture}")
    report = read_report(arguments.report)
    curves = report["curves"]
    if not curves["series"]:
        fail("the report must hold learning curves, got none")
    metric = choose("metric", arguments.metric, curves["metrics"], curves["chosen"])
    axis = choose("axis", arguments.axis, curves["axes"], curves["series"][0]["axis"])
    series = [
        one
        for one in curves["series"]
        if one["metric"] == metric["key"] and one["axis"] == axis["key"]
    ]
    if not series:
        fail(f"the runs must report {metric['key']} over {axis['key']}, got nothing")

    import vl_convert

    spec = specification(report, series, metric["title"], axis["title"])
    if arguments.picture.suffix == ".svg":
        arguments.picture.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
    else:
        arguments.picture.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))


if __name__ == "__main__":
    main()
