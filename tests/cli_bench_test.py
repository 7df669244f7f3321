# SPDX-License-Identifier: Apache-2.0
"""`pion bench` from outside: bad flags, the JSON's shape, tables made from it. No times."""

import json
import math
import subprocess

import pytest
from cli_command import BAD_INPUT, BINARY, needs_binary, pion

pytestmark = needs_binary
FAST = ("--seconds", 0.002)
TIMING = {"min_ms", "median_ms", "repetitions", "calls"}
ROW = {
    "group",
    "shape",
    "rule",
    "precision",
    "threads",
    "blocks",
    "numbers",
    "pion",
    "peers",
    "left_out",
    "best_peer",
    "ratio_min",
    "ratio_median",
    "roofline",
    "fraction_of_peak",
    "error",
    "direct_bf16_error",
}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--group", "head"], '--group: unknown group "head"; did you mean "heads"?'),
        (["--shape", "64"], "--shape: a parameter must be ROWSxCOLS"),
        (["--shape", "64x64,0x3"], "--shape: every number must be in [1,"),
        (["--rules", "pion22"], "--rules: a rule must be one of"),
        (["--precision", "bf16"], "--precision: a precision must be one of"),
        (["--threads", "0"], "--threads: must be in [1,"),
        (["--threads", "100000"], "the cores of this machine"),
        (["--threads", "two"], "--threads"),
        (["--seconds", "0"], "--seconds: must be in (0, 3600]"),
        (["--seconds", "nan"], "--seconds"),
        (["--group", "tiny", "--shape", "3x4"], "--shape: cannot be given with --group"),
        (["--group", "tiny", "--rules", "adamw"], "--rules: leaves nothing to measure"),
        (["--shape", "3x4", "--json", "no/such/place.json"], "--json: no directory"),
        (["--shape", "3x4", "--json", "."], "--json: must be a file"),
        (["--from", "missing.json"], "--from: no file"),
        (["--from", "small.toml"], "--from: small.toml: markdown: must be a result"),
        (["--peers", "optim_mun"], '--peers: must be one of optim_muon'),
        (["--peers", "none,fused"], '--peers: must be "none" alone'),
        (["--skip-slow", "1"], "--skip-slow: must be > 1, got 1"),
        (["--skip-slow", "nan"], "--skip-slow"),
        (["--sceonds", "1"], 'did you mean "--seconds"?'),
    ],
)
def test_bad_flags_name_themselves_and_write_nothing(folder, words, message):
    result = pion("bench", *words, "--quick", cwd=folder, check=BAD_INPUT)
    assert message in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["small.toml"]


def test_list_shows_groups_and_rules(folder):
    text = pion("bench", "--list", cwd=folder, check=0).stdout
    for name in ("heads", "8x128x1024", "mlp", "tiny", "elementwise", "pion2", "adamw"):
        assert name in text


def check_timing(timing):
    assert timing.keys() >= TIMING
    assert 0 < timing["min_ms"] <= timing["median_ms"] * 1.0001  # rounded to 5 digits
    assert timing["repetitions"] >= 3 and timing["calls"] >= 1


def check_row(row):
    assert row.keys() == ROW
    check_timing(row["pion"])
    for peer in row["peers"]:
        check_timing(peer)
    best = min(row["peers"], key=lambda peer: peer["min_ms"])
    assert row["best_peer"] == best["name"]
    assert row["ratio_min"] == pytest.approx(best["min_ms"] / row["pion"]["min_ms"], rel=1e-3)
    assert row["roofline"]["bound"] in ("flops", "bytes")
    assert row["roofline"]["bytes"] > 0


def test_measurements_have_the_documented_shape(folder):
    words = ["--shape", "8x16,2x4x8,3x6x2:cols,2*4x4+3x5", "--rules", "pion2,muon,adamw,sgd"]
    result = pion("bench", *words, *FAST, "--quick", "--json", "b.json", cwd=folder, check=0)
    data = json.loads((folder / "b.json").read_text())
    assert data["format"] == 1 and data["complete"] is True and data["errors"] == []
    assert data["machine"]["target"] in data["machine"]["targets"]
    (peaks,) = data["peaks"]
    assert peaks["threads"] == 1 and peaks["f32_gflops"] > 0
    sizes = [stream["bytes"] for stream in peaks["streams"]]
    assert sizes == sorted(sizes)
    assert all(stream["read_gbs"] > 0 for stream in peaks["streams"])

    rows = data["rows"]
    matrix = [row for row in rows if row["rule"] in ("pion2", "muon")]
    assert len(matrix) == 4 * 2 * 3 and len(rows) == len(matrix) + 4 * 2
    for row in rows:
        check_row(row)
    for row in matrix:
        names = {peer["name"] for peer in row["peers"]}
        assert names >= {"plain_bf16", "addmm_bf16", "addmm_f32"}
        assert ("optim_muon" in names) == (row["rule"] == "muon")
        assert row["fraction_of_peak"] > 0
        assert math.isfinite(row["error"]["frobenius"])
        # bf16 has 8 bits: its loop errs by 1e-4 at the very least, f32's by less
        if row["precision"] == "f32":
            assert row["error"]["frobenius"] < 1e-3 < 10 * row["direct_bf16_error"]["frobenius"]
    for row in rows:
        if row not in matrix:
            assert row["error"] is None and row["best_peer"] == "fused"
    heads = next(row for row in rows if row["shape"] == "3x6x2:cols")
    assert heads["blocks"] == 3 and heads["numbers"] == 36
    # what was printed can be made again
    assert pion("bench", "--from", "b.json", cwd=folder, check=0).stdout == result.stdout
    assert "| 3x6x2:cols" in result.stdout and "geometric mean" in result.stdout
    assert "[1/" in result.stderr


def test_peers_are_chosen_or_left_out(folder):
    words = ["--shape", "8x16", "--rules", "muon,adamw", "--precision", "fast", *FAST]
    words += ["--quick", "--json", "p.json"]

    def rows(*more):
        text = pion("bench", *words, *more, cwd=folder, check=0).stdout
        assert pion("bench", "--from", "p.json", cwd=folder, check=0).stdout == text
        return json.loads((folder / "p.json").read_text())["rows"], text

    (muon, adamw), _ = rows("--peers", "addmm_f32,optim_muon")
    assert [peer["name"] for peer in muon["peers"]] == ["optim_muon", "addmm_f32"]
    assert adamw["peers"] == [] and adamw["best_peer"] is None and adamw["ratio_min"] is None
    (muon, adamw), text = rows("--peers", "none")
    assert muon["peers"] == adamw["peers"] == [] and muon["pion"]["min_ms"] > 0
    assert "best peer" not in text
    # no two sides take the same time, and only the fastest stays
    (muon, _), text = rows("--skip-slow", 1.0001)
    left_out, kept = muon["left_out"], [peer["name"] for peer in muon["peers"]]
    assert {*left_out, *kept} >= {"optim_muon", "plain_bf16", "addmm_bf16"}
    assert len(kept) <= 1 and f"{left_out[0]} left out" in text


def test_tables_are_printed_as_they_come(folder):
    words = ["--group", "tiny,elementwise", "--quick", "--seconds", 0.2]
    command = [BINARY, "bench", *map(str, words)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        head = ""
        while "## " not in head:  # the first group's table, while the second is measured
            line = process.stdout.readline()
            assert line, head
            head += line
        assert process.poll() is None
        rest = process.stdout.read()
    assert rest.count("## ") == 1


def test_errors_alone_measure_no_time(folder):
    words = ["--errors", "--quick", "--rules", "pion2", "--precision", "accurate,f32"]
    text = pion("bench", *words, "--json", "e.json", cwd=folder, check=0).stdout
    data = json.loads((folder / "e.json").read_text())
    assert data["rows"] == []
    assert [row["spectrum"] for row in data["errors"]] == [
        "power_law",
        "gaussian",
        "low_rank",
        "log_spaced",
    ]
    for row in data["errors"]:
        assert row["fast"] is None
        assert row["accurate"]["frobenius"] >= 0 and row["f32"]["spectral"] >= 0
        assert row["direct_bf16"]["frobenius"] > row["f32"]["frobenius"]
    assert "accurate is no worse" in text


def test_what_is_outside_the_map_is_timed_by_itself(folder):
    words = ["--group", "outside", "--quick", *FAST, "--json", "o.json"]
    pion("bench", *words, cwd=folder, check=0)
    data = json.loads((folder / "o.json").read_text())
    if not data["machine"]["bf16"]:
        pytest.skip("the target has no bf16")
    (row,) = data["rows"]
    assert row.keys() == ROW
    assert row["pion"]["min_ms"] > 0
    assert [peer["name"] for peer in row["peers"]] == ["7 ATen operations"]


def test_a_limited_target_is_recorded(folder):
    words = ["--shape", "4x8", "--rules", "muon", "--precision", "fast", *FAST, "--quick"]
    pion(
        "bench",
        *words,
        "--json",
        "t.json",
        cwd=folder,
        check=0,
        environment={"PION_CPU_TARGET": "portable"},
    )
    data = json.loads((folder / "t.json").read_text())
    assert data["machine"]["target"] == "portable"
    assert data["machine"]["limits"] == ["PION_CPU_TARGET=portable"]
    assert data["rows"][0]["precision"] == "fast"
