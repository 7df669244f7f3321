# SPDX-License-Identifier: Apache-2.0
"""pion.track with the trackers' own libraries, and what they have written read back."""

import json
import math
import os
import pathlib
import sqlite3
import struct
import subprocess
import sys

import pytest

pytest.importorskip("pion_track", reason="the installed wheel has no pion_track")

import torch
from judges import mlp

import pion

KEPT = "optimizer/update_rms/0.weight"


def training(log, steps: int = 3) -> list[float]:
    """Trains and logs; returns the first matrix's update sizes."""
    model = mlp()
    optimizer = pion.PionAdamW(pion.route(model), lr=1e-2)
    optimizer.collect_statistics()
    sizes = []
    for step in range(steps):
        loss = model(torch.ones(4, 8)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log(step, {"train/loss": loss, "train/step": step * 2}, optimizer=optimizer)
        sizes.append(optimizer.statistics()[0]["update_rms"])
    assert all(size > 0 for size in sizes)
    return sizes


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    where = {"project": "tiny", "name": "first", "folder": str(tmp_path)}
    with pion.track("tensorboard", **where, config={"lr": 1e-2}) as log:
        sizes = training(log)
        log.text(2, "note", "half-way")
    events = EventAccumulator(str(tmp_path / "tiny" / "first"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/step")] == [(0, 0), (1, 2), (2, 4)]
    assert [e.value for e in events.Scalars(KEPT)] == pytest.approx(sizes)
    assert '"lr": 0.01' in events.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert events.Tensors("note")[0].tensor_proto.string_val == [b"half-way"]
    tags = events.Tags()["scalars"]
    assert "optimizer/directions_passed/0.weight" in tags
    # a bias has no spectrum
    assert "optimizer/gradient_norm/0.bias" in tags
    assert "optimizer/directions_passed/0.bias" not in tags


def leveldb_records(data: bytes, start: int):
    """Records of a log in LevelDB's format: blocks of 32 KiB of (checksum, length, type) parts."""
    record = b""
    while start + 7 <= len(data):
        left = 32768 - start % 32768
        if left < 7:  # the end of a block is padded
            start += left
            continue
        length, kind = struct.unpack_from("<HB", data, start + 4)
        record += data[start + 7 : start + 7 + length]
        start += 7 + length
        if kind in (1, 4):  # whole, last
            yield record
            record = b""


@pytest.mark.hosts
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pion.track("wandb", project="tiny", folder=str(tmp_path), config={"lr": 0.5}) as log:
        sizes = training(log)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    history, project = [], None
    for data in leveldb_records(file.read_bytes(), 7):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        project = record.run.project or project
        if record.HasField("history"):
            items = record.history.item
            history.append({".".join(i.nested_key) or i.key: i.value_json for i in items})
    assert project == "tiny"
    assert [float(row[KEPT]) for row in history] == pytest.approx(sizes)
    assert [int(float(row["update"])) for row in history] == [0, 1, 2]


TRACKIO = """
import json, pion, track_test
with pion.track("trackio", project="tiny", name="first") as log:
    sizes = track_test.training(log)
print(json.dumps(sizes))
"""


@pytest.mark.hosts
def test_trackio(tmp_path):
    pytest.importorskip("trackio")
    # a process of its own: the library reads TRACKIO_DIR when it is first imported
    command, here = [sys.executable, "-c", TRACKIO], pathlib.Path(__file__).parent
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path)}
    run = subprocess.run(
        command, cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    sizes = json.loads(run.stdout.strip().splitlines()[-1])
    (file,) = tmp_path.glob("tiny.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    assert [step for step, _ in rows] == [0, 1, 2]
    assert [json.loads(metrics)[KEPT] for _, metrics in rows] == pytest.approx(sizes)


class Writer:
    """Remembers what a tracker would be given."""

    def __init__(self, *made_of):
        self.made_of, self.rows, self.closed = made_of, [], False

    def write(self, step, values, texts):
        self.rows.append((step, values, texts))

    def close(self):
        self.closed = True


@pytest.fixture
def writer(monkeypatch, tmp_path):
    from pion_track.writers import WRITERS

    made = []
    monkeypatch.setitem(WRITERS, "tensorboard", lambda *a: made.append(Writer(*a)) or made[0])
    monkeypatch.chdir(tmp_path)
    return made


def test_wrapped_optimizers_and_what_is_no_number(writer):
    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer

    weight = torch.nn.Parameter(torch.eye(4))
    optimizer = pion.Muon([weight], lr=0.1)
    with pytest.raises(ZeroDivisionError), pion.track("tensorboard") as log:
        with pytest.raises(ValueError, match=r"collect_statistics\(\)"):
            log(0, optimizer=optimizer)
        optimizer.collect_statistics()
        weight.grad = torch.full((4, 4), math.nan)
        with pytest.warns(pion.EmptyUpdateWarning):
            optimizer.step()
        log(1, {"x": torch.tensor([2.0])}, optimizer=Wrapper(Wrapper(optimizer)))
        with pytest.raises(ValueError, match="loss must be a number"):
            log(2, {"loss": torch.ones(3)})
        with pytest.raises(ValueError, match="one of pion, got SGD"):
            log(2, optimizer=torch.optim.SGD([weight]))
        raise ZeroDivisionError
    (one,) = writer
    assert one.closed
    ((step, values, texts),) = one.rows
    assert (step, values["x"], texts) == (1, 2.0, {})
    assert all(math.isfinite(value) for value in values.values())
    assert values["optimizer/skipped/groups.0.params.0"] == 1.0


def test_unknown_and_missing_libraries(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match='"tensorboard" "wandb" "trackio", got \'mlflow\''):
        pion.track("mlflow").__enter__()
    monkeypatch.setitem(sys.modules, "wandb", None)
    error = pytest.raises(ModuleNotFoundError, match="pip install wandb")
    with error, pion.track("wandb", folder=str(tmp_path)):
        pass
