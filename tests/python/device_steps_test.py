# SPDX-License-Identifier: Apache-2.0
"""What a step on a GPU moves, keeps and waits for: recorded on fake tensors, no GPU is needed."""

import pytest
import torch
from fake_device import Recorder, fake_device
from torch._subclasses.fake_tensor import DataDependentOutputException

import pion

MIB = 1 << 20


def recorded(shapes: list, rule: str, dtype=torch.float32, steps=40, collect=False, kept=None, **keys):
    """The recorder of one step on "cuda", and the number of weights; `kept` gets the recorder even
    where the step does not end."""
    with fake_device():
        rate = torch.empty((), device="cuda") if keys.get("capturable") else 0.1
        weights = [torch.nn.Parameter(torch.empty(s, device="cuda", dtype=dtype)) for s in shapes]
        group = {"params": weights, "rule": rule, "weight_decay": 0.1, **keys}
        optimizer = pion.PionAdamW([group], lr=rate)
        optimizer.init_state()
        for _, cell in optimizer.named_cells():
            cell.begun = steps  # of a run: directions are counted in one step of 16
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        optimizer.collect_statistics(collect)
        recorder = Recorder()
        if kept is not None:
            kept.append(recorder)
        with recorder:
            optimizer.step()
        return recorder, sum(w.numel() for w in weights)


@pytest.mark.parametrize(
    ("rule", "keys", "most"),
    [
        # momentum 12, its norm 4, X 6, the weight 12, finiteness 4
        ("pion", {}, 38),
        ("muon", {"nesterov": False}, 38),
        # a direction of its own 12, whose norm tells of finiteness too
        ("muon", {}, 46),
        # w, m and v read and written, g read; finiteness 4
        ("adamw", {}, 32),
        # the buffer 12, the weight 12, finiteness 4
        ("sgd", {}, 28),
        ("muon", {"nonfinite": "raise", "nesterov": False}, 34),
    ],
)
def test_every_entry_is_read_and_written_a_few_times(rule, keys, most):
    for shape in ((2048, 2048), (768, 3072), (3072, 768)):
        if keys.get("nonfinite") == "raise":
            keys = {key: value for key, value in keys.items() if key != "nonfinite"}
            most += 4
        recorder, weights = recorded([shape], rule, **keys)
        assert recorder.bytes / weights <= most + 0.1, shape
        assert not recorder.waits


def test_no_products_of_f32_matrices_but_when_asked_for():
    for shape in ((1024, 1024), (1024, 4096), (64, 64)):
        for precision in ("fast", "accurate"):
            recorder, _ = recorded([shape] * 3, "muon", precision=precision)
            assert set(recorder.products) == {torch.float16}, (shape, precision)
        recorder, _ = recorded([shape] * 3, "muon", precision="f32")
        assert set(recorder.products) == {torch.float32}


LARGEST = (4096, 4096)  # two f32 buffers of it are 128 MiB


@pytest.mark.parametrize("collect", [False, True])
@pytest.mark.parametrize(
    ("keys", "dtype", "buffers"),
    [
        ({}, torch.float32, 2.0),
        ({"low_precision": "master"}, torch.bfloat16, 2.0),
        ({"low_precision": "nearest"}, torch.bfloat16, 2.0),
        ({"heads": 32, "head_axis": 1}, torch.float32, 2.0),
        ({"precision": "f32"}, torch.float32, 2.1),
        # A and T twice, in fp16, beside X
        ({"precision": "accurate"}, torch.float32, 3.0),
    ],
)
def test_a_step_needs_two_buffers_of_the_largest_matrix(keys, dtype, buffers, collect):
    recorder = peak_of([LARGEST, (1024, 1024)], "muon", dtype, collect, **keys)
    assert recorder.peak <= buffers * 64 * MIB + 4 * MIB  # figures of a head at a time


def peak_of(shapes, rule, dtype, collect, **keys):
    """The recorder; with statistics, whose one transfer a fake tensor cannot take part in, up to
    that transfer."""
    kept = []
    try:
        recorded(shapes, rule, dtype, collect=collect, kept=kept, **keys)
    except DataDependentOutputException:
        assert collect
        assert kept[0].waits == ["_local_scalar_dense"]
    return kept[0]


def test_many_matrices_are_stepped_within_64_mib():
    for precision in ("fast", "accurate", "f32"):
        for shape, count in (((64, 64), 2000), ((576, 1536), 60), ((1024, 1024), 40)):
            recorder, _ = recorded([shape] * count, "muon", precision=precision)
            assert recorder.peak <= 64 * MIB, (precision, shape)


def test_a_whole_step_can_be_captured():
    for rule, keys in (("pion", {}), ("muon", {"normalization": "spectral"}), ("adamw", {}),
                       ("sgd", {})):  # fmt: skip
        shapes = [(512, 512), (64, 64), (48, 16)]
        recorder, _ = recorded(shapes, rule, capturable=True, steps=0, **keys)
        # warnings travel to the host beside the step, but in a capture
        assert set(recorder.waits) <= {"to the host"}, rule


def test_a_step_of_many_matrices_takes_few_launches():
    recorder, _ = recorded([(64, 64)] * 500, "muon")
    assert recorder.launches < 500
    recorder, _ = recorded([(576, 576)] * 100 + [(576, 1536)] * 100, "muon")
    assert recorder.launches < 200 * 12  # half of torch.optim.Muon's 24 a matrix
