# SPDX-License-Identifier: Apache-2.0
"""What a step on a GPU moves, keeps and waits for: recorded on fake tensors, no GPU is needed."""

import subprocess
import sys
import warnings

import pytest
import torch
from judges import gaussian, parameter, run
from torch._subclasses.fake_tensor import DataDependentOutputException

import pion
import pion.torch_bucket
from pion.bench_gpu import record
from pion.bench_gpu.count import fake_device

MIB = 1 << 20


class Recorder(record.Recorder):
    """Also stops where a value is read: a fake tensor has none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func is torch.ops.aten._local_scalar_dense.default and self.waits:
            raise DataDependentOutputException(func)
        return result


def recorded(
    shapes: list, rule: str, dtype=torch.float32, steps=40, collect=False, kept=None, reads=False,
    **keys,
):  # fmt: skip
    """The recorder of one step on "cuda", and the number of weights; `kept` gets the recorder even
    where the step does not end. `reads`: a value that is read is 1."""
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
        recorder = record.Recorder() if reads else Recorder()
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
        # the look before the step 4
        ("muon", {"nonfinite": "raise", "nesterov": False}, 38),
    ],
)
def test_every_entry_is_read_and_written_a_few_times(rule, keys, most):
    for shape in ((2048, 2048), (768, 3072), (3072, 768)):
        looks = keys.get("nonfinite") == "raise"
        recorder, weights = recorded([shape], rule, reads=looks, **keys)
        assert recorder.bytes() / weights <= most + 0.1, shape
        assert recorder.waits == (["_local_scalar_dense"] if looks else [])


def test_no_products_of_f32_matrices_but_when_asked_for():
    for shape in ((1024, 1024), (1024, 4096), (64, 64)):
        for precision in ("fast", "accurate"):
            recorder, _ = recorded([shape] * 3, "muon", precision=precision)
            assert set(recorder.flops()) == {"f16"}, (shape, precision)
        recorder, _ = recorded([shape] * 3, "muon", precision="f32")
        assert set(recorder.flops()) == {"f32"}


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
    assert recorder.peak_bytes <= buffers * 64 * MIB + 4 * MIB  # figures of a head at a time


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
            assert recorder.peak_bytes <= 64 * MIB, (precision, shape)


def test_a_whole_step_can_be_captured():
    for rule, keys in (("pion", {}), ("muon", {"normalization": "spectral"}), ("adamw", {}),
                       ("sgd", {})):  # fmt: skip
        shapes = [(512, 512), (64, 64), (48, 16)]
        recorder, _ = recorded(shapes, rule, capturable=True, steps=0, **keys)
        assert recorder.waits == [], rule


def test_a_step_of_many_matrices_takes_few_launches():
    recorder, _ = recorded([(64, 64)] * 500, "muon")
    assert recorder.launches() < 500
    recorder, _ = recorded([(576, 576)] * 100 + [(576, 1536)] * 100, "muon")
    assert recorder.launches() < 200 * 12  # half of torch.optim.Muon's 24 a matrix


class TestScaler:
    """torch.amp.GradScaler's protocol: gradients times a scale, and a flag."""

    @pytest.mark.parametrize("shape", [(12, 20), (260, 300)])
    @pytest.mark.parametrize("rule", ["muon", "adamw", "sgd"])
    def test_gradients_are_unscaled_and_a_flag_leaves_the_step_out(self, rule, shape, path):
        weights = [parameter(shape), parameter(shape)]
        plain, scaled = (
            pion.PionAdamW([{"params": [w], "rule": rule, "precision": "f32"} if rule == "muon"
                            else {"params": [w], "rule": rule}], lr=0.1)
            for w in weights
        )  # fmt: skip
        assert scaled._step_supports_amp_scaling
        for step, found in enumerate((0.0, 1.0, 0.0)):
            gradient = gaussian(shape, step)
            weights[1].grad = gradient * 1024
            if found:
                weights[1].grad[0, 0] = float("inf")
            before = weights[1].detach().clone()
            scaled.grad_scale, scaled.found_inf = torch.tensor(1024.0), torch.tensor(found)
            scaled.step()
            del scaled.grad_scale, scaled.found_inf
            if found:
                assert torch.equal(weights[1], before)
                continue
            weights[0].grad = gradient
            plain.step()
        # powers of two: the same numbers, and the step left out left nothing behind
        assert torch.allclose(*weights, rtol=0, atol=2.0**-20)
        assert scaled.state[weights[1]]["step"] == 2


def test_a_rate_may_be_a_tensor_of_any_shape_of_one_element(path):
    for shape in ((40, 30), (300, 260)):
        results = []
        for rate in (0.1, torch.tensor(0.1), torch.tensor([0.1])):
            groups = [
                {"params": [parameter(shape)], "rule": rule} for rule in ("muon", "adamw", "sgd")
            ]
            optimizer = pion.PionAdamW(groups, lr=rate, weight_decay=0.1)
            results.append(run(optimizer, [g["params"][0] for g in optimizer.param_groups], 2))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)  # 0.1 in f32


def test_state_of_another_device_is_moved_or_named():
    with fake_device():
        weight = torch.nn.Parameter(torch.empty(300, 300, device="cuda"))
        optimizer = pion.Muon([("w", weight)], lr=0.1)
        optimizer.init_state()
        state = optimizer.state[weight]
        state["momentum_buffer"] = torch.empty(300, 300)  # made before model.cuda()
        weight.grad = torch.empty_like(weight)
        with Recorder():
            optimizer.step()
        assert state["momentum_buffer"].device.type == "cuda"
        state["momentum_buffer"] = torch.empty(300, 299, device="cuda")
        with pytest.raises(ValueError, match="momentum_buffer of w must be .*300, 300"):
            optimizer.step()


def test_f32_products_are_not_rounded_whatever_was_asked_for():
    from pion.tensor_products import true_products

    before = torch.get_float32_matmul_precision()
    try:
        for asked in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(asked)
            with true_products():
                assert not torch.backends.cuda.matmul.allow_tf32
            assert torch.get_float32_matmul_precision() == asked
    finally:
        torch.set_float32_matmul_precision(before)


BY_BACKEND = """
import torch
from pion.tensor_products import true_products
torch.backends.cuda.matmul.fp32_precision = "tf32"
with true_products():
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert not torch.backends.cuda.matmul.allow_tf32
assert torch.backends.cuda.matmul.fp32_precision == "tf32"
"""


def test_nor_where_a_backend_was_asked():
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("PyTorch before 2.9")
    subprocess.run([sys.executable, "-c", BY_BACKEND], check=True, timeout=400)


def test_fused_is_refused_where_torch_has_no_fused_kernels(monkeypatch):
    from pion import fused_updates, optimizer

    pion.Muon([parameter((4, 4))], fused=True)
    monkeypatch.setattr(optimizer, "has_fused", lambda kind: False)
    with pytest.raises(ValueError, match="fused must be off.*device cpu"):
        pion.Muon([parameter((4, 4))], fused=True)
    # and there the same formulas run tensor by tensor
    results = []
    for fused in (True, False):
        monkeypatch.setattr(fused_updates, "has_fused", lambda kind, fused=fused: fused)
        groups = [{"params": [parameter((300, 260))], "rule": rule, "maximize": rule == "adamw"}
                  for rule in ("pion", "adamw", "sgd")]  # fmt: skip
        made = pion.PionAdamW(groups, lr=0.1, weight_decay=0.1)
        with pion.force_torch_path():
            results.append(run(made, [g["params"][0] for g in made.param_groups], 3))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_stochastic_rounding_takes_no_launch_a_parameter(monkeypatch):
    # seeds come from the host's counters, of which fake tensors have none
    monkeypatch.setattr(pion.torch_bucket, "next_seeds", lambda items: list(range(len(items))))
    keys = {"low_precision": "stochastic", "dtype": torch.bfloat16}
    few, _ = recorded([(32, 32)] * 2, "sgd", **keys)
    many, _ = recorded([(32, 32)] * 64, "sgd", **keys)
    assert many.launches() == few.launches() and not many.waits


def test_an_old_device_takes_f32_and_says_so_once(monkeypatch):
    from pion.tensor_products import operand_type

    operand_type.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", "12.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    device = torch.device("cuda", 0)
    try:
        with pytest.warns(RuntimeWarning, match="no tensor cores"):
            assert operand_type(device) == torch.float32
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert operand_type(device) == torch.float32
        assert operand_type(torch.device("hpu")) == torch.bfloat16
    finally:
        operand_type.cache_clear()
