# SPDX-License-Identifier: Apache-2.0
"""Rows as Markdown."""


def of_counts(rows: list[dict]) -> str:
    """A table a case: what every optimizer computes and moves, and its modelled time."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        lines += ["", f"{case}:", "", _COUNTED, "| --- |" + " ---: |" * 7]
        lines += [_counted(row) for row in rows if row["case"] == case]
    return "\n".join(lines[1:])


_COUNTED = (
    "| a step | GFLOP of products, by operands | B a weight | launches | peak memory, MiB | waits |"
    " ms, modelled | times as fast |"
)


def _counted(row: dict) -> str:
    name = row["optimizer"] + (", Triton" if row.get("symmetric") else "")
    products = ", ".join(f"{_short(value)} {key}" for key, value in row["gflop"].items())
    cells = [
        name,
        products or "none",
        f"{row['bytes_a_weight']:.1f}",
        str(row["launches"]),
        f"{row['peak_bytes'] / 2**20:.1f}",
        str(row["waits"]),
        _short(row["modelled_ms"]),
        f"{row['ratio']:.2f}" if "ratio" in row else "1",
    ]
    return "| " + " | ".join(cells) + " |"


def of_times(rows: list[dict]) -> str:
    """A table of what was measured."""
    lines = [
        (
            "| case | optimizer | ms | least | torch.optim.Muon, ms | times as fast | peak memory, MiB |"
            " torch.optim.Muon's |"
        ),
        "| --- | --- |" + " ---: |" * 6,
    ]
    for row in rows:
        cells = [row["case"], row["optimizer"]]
        if "failed" in row:
            cells += [f"not measured: {row['failed']}", "", "", "", "", ""]
        else:
            cells += [_short(row[key]) for key in ("ms", "least_ms", "peer_ms")]
            cells += [f"{row['ratio']:.2f}"]
            cells += [f"{row[key] / 2**20:.1f}" for key in ("peak_bytes", "peer_peak_bytes")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def of_parity(rows: list[dict]) -> str:
    """A table of how far the device's updates are from the CPU's."""
    lines = ["| case | optimizer | apart from the CPU's update |", "| --- | --- | ---: |"]
    lines += [f"| {row['case']} | {row['optimizer']} | {row['apart']:.1e} |" for row in rows]
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
