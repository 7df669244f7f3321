# SPDX-License-Identifier: Apache-2.0
"""pion.bench_gpu: the counter against operations that are counted by hand; the shapes; the commands."""

import json
import math

import pytest
import torch
from pion.bench_gpu import __main__ as command
from pion.bench_gpu import contenders, count, measure, shapes, tables, times
from pion.bench_gpu.record import Recorder

import pion
from pion import triton_products

F32, F16 = 4, 2  # bytes


def recorded(operation) -> Recorder:
    """What operation(empty) does, where empty makes fake tensors on a device."""
    with count.fake_device():

        def empty(*shape, dtype=torch.float32):
            return torch.empty(shape, dtype=dtype, device="cuda")

        with Recorder("cuda") as record:
            operation(empty, record)
    return record


def test_products_by_the_type_of_their_operands():
    def operation(empty, record):
        half = empty(3, 40, 50, dtype=torch.float16)
        torch.mm(empty(10, 20), empty(20, 30))
        torch.bmm(half, half.mT, out_dtype=torch.float32)
        torch.bmm(half.bfloat16(), half.mT.bfloat16())

    record = recorded(operation)
    assert record.flops() == {
        "f32": 2 * 10 * 20 * 30,
        "f16": 3 * 2 * 40 * 50 * 40,
        "bf16": 3 * 2 * 40 * 50 * 40,
    }
    bytes_ = [o.bytes for o in record.operations if o.type]
    assert bytes_ == [
        F32 * (10 * 20 + 20 * 30 + 10 * 30),
        3 * (F16 * 2 * 40 * 50 + F32 * 40 * 40),
        3 * F16 * (2 * 40 * 50 + 40 * 40),
    ]


def test_an_added_matrix_is_copied_first_unless_it_is_the_result():
    def operation(empty, record):
        a, c = empty(2, 8, 8), empty(2, 8, 8)
        torch.baddbmm(c, a, a, beta=0.5)
        c.baddbmm_(a, a, beta=0.5)
        torch.baddbmm(c, a, a, beta=0.0)

    matrix = 2 * 8 * 8 * F32
    operations = recorded(operation).operations
    assert [o.launches for o in operations] == [2, 1, 1]
    # a copy of c, then a, the result read and written; in place; without c
    assert [o.bytes for o in operations] == [
        (2 + 3) * matrix,
        3 * matrix,
        2 * matrix,
    ]
    assert all(o.flops == 2 * 2 * 8**3 for o in operations)


def test_bytes_of_element_wise_operations():
    def operation(empty, record):
        x, y, row = empty(100, 30), empty(100, 30), empty(30)
        x.mul_(2.0)  # read, written
        torch.ops.aten.copy_(x, y)  # y read, x written
        x + row  # row once
        x.half()
        x.zero_()
        torch.linalg.vector_norm(x)
        torch.add(x, y, out=empty(100, 30))
        x.view(30, 100).mT.unsqueeze(0).detach()  # nothing

    n = 100 * 30
    assert [o.bytes for o in recorded(operation).operations] == [
        2 * F32 * n,
        2 * F32 * n,
        2 * F32 * n + F32 * 30,
        F32 * n + F16 * n,
        F32 * n,
        F32 * n + F32,
        3 * F32 * n,
    ]


def test_launches_of_lists():
    def operation(empty, record):
        many = [empty(64, 64) for _ in range(500)]
        torch._foreach_mul_(many, 2.0)  # 770 tensors of one list a launch
        torch._foreach_add_(many, many)  # 448 of two
        torch._foreach_mul_([empty(2**20, 160)], 2.0)  # 2560 blocks of 65536; 2240 a launch
        torch.cat(many[:300])  # 128 a launch
        torch._foreach_mul_([x.narrow(1, 0, 9) for x in many[:3]], 2.0)  # gaps: one by one

    assert [o.launches for o in recorded(operation).operations] == [1, 2, 2, 3, 3]


def test_the_peak_of_what_lives():
    def operation(empty, record):
        x = empty(1000)  # 4000 bytes: 8 blocks of 512
        y = x * 2
        del y
        z = x * 2  # in the place of y
        record.operations.append(z)

    record = recorded(operation)
    assert record.peak_bytes == 2 * 4096
    assert recorded(lambda empty, record: empty(100) * 2).live_bytes == 0


def test_waits_of_the_host():
    def operation(empty, record):
        x = empty(10)
        assert record.waits == []
        float(x.sum())
        x.cpu()
        x.to("cpu", non_blocking=True)
        torch.ops.aten._to_copy(torch.zeros(10), device=torch.device("cuda"))
        torch.linalg.svd(empty(4, 4))

    waits = recorded(operation).waits
    assert waits == ["_local_scalar_dense", "_to_copy", "_to_copy", "_linalg_svd"]


def test_a_modelled_time_by_hand():
    device = times.Device("one", {"f32": 1e9, "f16": 1e10}, 1e9, launch=1e-3)

    def operation(empty, record):
        torch.mm(empty(1000, 1000), empty(1000, 1000))  # 2e9 FLOP: 2 s
        torch.mm(empty(1000, 1000).half(), empty(1000, 1000).half())  # casts .006 s each; .2 s
        empty(10).mul_(2.0)  # a launch

    operations = recorded(operation).operations
    assert times.seconds(operations, device) == pytest.approx(2 + 2 * 6e-3 + 0.2 + 1e-3)


def test_torchs_muon_is_counted_as_its_formulas_say():
    (case,) = (c for c in shapes.SHAPES if c.name == "1 : 4, 1024 x 4096")
    record = count.record(contenders.PEER, case)
    # five times X X^T, A A and B X, for each of four matrices
    assert record.flops() == {"bf16": 4 * 5 * (2 * 4 + 1) * 2.0 * 1024**3}
    # lerp_ 12, lerp 12, cast 6, norm 2, division 4, decay 8, update 10
    assert record.bytes() / case.weights() == pytest.approx(54, abs=1e-5)
    each = count.record_each(contenders.PEER, case)
    assert each.flops() == record.flops() and each.bytes() == record.bytes()
    assert each.launches() == record.launches() == 4 * 33
    assert each.peak_bytes == record.peak_bytes


def test_torchs_fused_optimizers_read_and_write_what_they_must():
    found = {
        other.name: count.record(other, count.EMBEDDING).bytes() / count.EMBEDDING.weights()
        for _, other in contenders.ELEMENTWISE
    }
    # weight and two moments read and written, the gradient read
    assert found["torch.optim.AdamW(fused)"] == pytest.approx(28, abs=1e-5)
    assert found["torch.optim.SGD(fused), momentum"] == pytest.approx(20, abs=1e-5)


def test_a_symmetric_product_counts_what_its_tiles_compute():
    def operation(empty, record):
        x = empty(3, 256, 100, dtype=torch.float16)
        assert triton_products.symmetric_product(x, x).shape == (3, 256, 256)
        y = empty(2, 1024, 1024, dtype=torch.float16)
        triton_products.symmetric_product(y, y, c=y, dtype=torch.float32)

    record = recorded(operation)
    small, large = (o.flops for o in record.operations)
    assert small == 3 * 2 * 100 * 256**2 * 10 / 16  # 4 x 4 tiles of 64, 10 of them
    assert large == 2 * 2 * 1024**3 * 36 / 64  # 8 x 8 of 128
    assert record.flops() == {"f16": small + large}
    for rows in (1, 63, 64, 65, 200, 511, 512, 700):
        size = triton_products.tile(rows)
        tiles = math.ceil(rows / size)
        lower = sum(
            min(size, rows - i * size) * min(size, rows - j * size)
            for i in range(tiles)
            for j in range(i + 1)
        )
        assert triton_products.entries(rows) == lower


@pytest.mark.parametrize("case", shapes.SHAPES, ids=lambda case: case.name)
def test_no_f32_matrices_are_multiplied_but_under_f32(case):
    for contender in contenders.MATRIX:
        exact = contender.name.endswith("f32")
        for symmetric in (False, True):
            products = count.record(contender, case, symmetric=symmetric).flops()
            assert products.keys() == {"f32" if exact else "f16"}, contender.name


# torch.optim.Muon's modelled time over ours that holds, without and with symmetric products; where
# it is below what a case asks for, the launches of pieces of one matrix take the time
HELD = {
    "square, 1024 x 1024": (1.9, 2.5),
    "1 : 4, 1024 x 4096": (1.25, 1.5),
    "large square, 4096 x 4096": (0.98, 1.35),
    "large 1 : 4, 4096 x 16384": (1.4, 1.95),
    "heads, 16 of 128 x 2048": (9.0, 11.0),
    "many, 256 of 64 x 64": (90.0, 100.0),
}


@pytest.mark.parametrize("case", shapes.SHAPES, ids=lambda case: case.name)
def test_modelled_ratios_bytes_memory_and_waits(case):
    device, peer = times.DEVICES["h100"], count.record_each(contenders.PEER, case)
    theirs = times.seconds(peer.operations, device)
    largest = max(m.rows * m.cols for m in case.matrices)
    for contender in contenders.MAIN:
        for symmetric, least in zip((False, True), HELD[case.name], strict=True):
            own = count.record(contender, case, symmetric=symmetric)
            assert theirs / times.seconds(own.operations, device) >= least, contender.name
            assert own.waits == []
            # 64 MiB, or two of the largest matrix in f32; and scalars
            assert own.peak_bytes <= max(2**26, 2 * F32 * largest) + 2**16
            bytes_ = own.bytes() / case.weights()
            if "many" in case.name:  # stacked, which saves launches: theirs are 8448
                assert own.launches() <= 100
            else:  # Nesterov's look-ahead is read and written once more
                assert bytes_ <= (40 if contender.name == "pion Pion" else 47)


def test_shapes_are_those_of_the_models():
    transformers = pytest.importorskip("transformers")
    families = {"SmolLM2-135M": "Llama", "Qwen3-0.6B": "Qwen3", "Qwen3-4B": "Qwen3"}
    published = {"SmolLM2-135M": 134515008, "Qwen3-0.6B": 596049920, "Qwen3-4B": 4022468096}
    for name, sizes in shapes.MODELS.items():
        config = getattr(transformers, f"{families[name]}Config")(
            hidden_size=sizes.hidden_size,
            intermediate_size=sizes.intermediate_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.key_value_heads,
            head_dim=sizes.head_dim,
            vocab_size=sizes.vocab_size,
            tie_word_embeddings=True,
        )
        with torch.device("meta"):
            model = getattr(transformers, f"{families[name]}ForCausalLM")(config)
        parameters = list(model.parameters())
        assert sum(p.numel() for p in parameters) == published[name]
        own = sorted(p.shape for p in model.model.layers.parameters() if p.dim() == 2)
        ours = []
        for m in shapes.layer(sizes, False, sizes.layers):
            ours += [torch.Size((m.rows, m.cols))] * m.count
        assert sorted(ours) == own


def test_cut_heads_are_the_same_weights():
    for case in shapes.cases(1):
        blocks = contenders.blocks(case, "meta", torch.float32)
        assert sum(p.numel() for p in blocks) == case.weights()


def test_counting_prints_and_writes(tmp_path, capsys):
    file = tmp_path / "counts.json"
    assert (
        command.main(["--count", "--layers", "1", "--case", "1 : 4, 1024", "--json", str(file)])
        == 0
    )
    text = capsys.readouterr().out
    assert "989" in text and "| torch.optim.Muon | 387 bf16 | 54.0 | 132 |" in text
    rows = json.loads(file.read_text())["counted"]
    assert {"gflop", "bytes_a_weight", "launches", "peak_bytes", "modelled_ms"} <= rows[0].keys()
    assert command.main(["--count", "--case", "nothing like it"]) == 2
    assert "1 : 4" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main([])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_measuring_without_a_device_is_refused(capsys):
    assert command.main(["--run"]) == 1
    assert "CUDA device must be at hand" in capsys.readouterr().err


def test_measuring_steps_by_turns(monkeypatch):
    case = shapes.Case("small", (shapes.Matrices(2, 16, 24), shapes.Matrices(1, 32, 16, 4)))
    turns = []

    def timed(optimizer, device):
        turns.append(type(optimizer).__module__.split(".")[0])
        return 1.0 if turns[-1] == "torch" else 0.5

    monkeypatch.setattr(measure, "_timed", timed)
    rows = measure.measured([case], torch.device("cpu"), seconds=0.0)
    assert [row["optimizer"] for row in rows] == [c.name for c in contenders.MAIN]
    assert all(row["ratio"] == 2.0 and row["pairs"] >= 5 for row in rows)
    # every pair of turns holds one of each
    assert all({a, b} == {"torch", "pion"} for a, b in zip(turns[::2], turns[1::2], strict=True))
    monkeypatch.undo()
    (row, _) = measure.measured([case], torch.device("cpu"), seconds=0.0)
    assert 0 < row["least_ms"] <= row["ms"]


def test_parity_compares_updates():
    with pion.force_torch_path():  # the CPU twice
        assert all(row["apart"] == 0.0 for row in measure.parity(torch.device("cpu")))
    rows = measure.parity(torch.device("cpu"))  # the kernels, which multiply bf16 or f32
    assert len(rows) == 20 and all(0.0 < row["apart"] < 0.1 for row in rows)
    assert tables.of_parity(rows).count("\n") == 21


def test_what_does_not_fit_is_named(monkeypatch):
    case = shapes.Case("large", (shapes.Matrices(1, 1000, 1000),))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e6, 1e6))
    with pytest.raises(measure.NoRoom, match="0.0 GB"):
        measure._check_room(case, torch.device("cuda"), torch.float32)
