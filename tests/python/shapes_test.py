# SPDX-License-Identifier: Apache-2.0
"""Heads, fused projections, convolutions, stacks: equal to separate parameters, bit for bit."""

import pytest
import torch
from judges import gaussian, parameter, run

import pion


def stepped(weights: list, **keys) -> list:
    """The weights after three steps; gradients are cut out of those of the whole."""
    parameters = [torch.nn.Parameter(w.clone()) for w, _ in weights]
    # f32: an ulp of a norm would turn roundings to fp16
    optimizer = pion.Pion(parameters, lr=0.1, weight_decay=0.1, precision="f32", **keys)
    for step in range(3):
        for p, (_, gradient) in zip(parameters, weights, strict=True):
            p.grad = gradient(step).clone()
        optimizer.step()
    return [p.detach() for p in parameters]


def whole(shape):
    return gaussian(shape, 1), lambda step: gaussian(shape, 10 + step)


def cut(shape, index):
    """The same weight and gradients, cut."""
    return gaussian(shape, 1)[index], lambda step: gaussian(shape, 10 + step)[index]


def close(path, a, b):
    # one batch of several blocks may be multiplied in another order than one block: rounding of
    # f32, behind the filter's slope (at most 12) and three steps of 0.1 * 0.2 * sqrt(64) = 0.16
    if path == "kernels":
        assert torch.equal(a, b)
    else:
        assert (a - b).abs().max() <= 3 * 0.16 * 12 * 30 * 2.0**-24


def test_output_heads_are_separate_matrices(path):
    # Q of 4 heads, K of 2 (grouped queries): blocks of rows
    for heads, rows in ((4, 64), (2, 32)):
        shape, size = (rows, 48), rows // heads
        (got,) = stepped([whole(shape)], heads=heads)
        parts = [cut(shape, slice(i * size, (i + 1) * size)) for i in range(heads)]
        close(path, got, torch.cat(stepped(parts)))


def test_input_heads_of_the_output_projection_are_separate_matrices(path):
    shape = (48, 64)
    (got,) = stepped([whole(shape)], heads=4, head_axis=1)
    parts = [cut(shape, (slice(None), slice(i * 16, (i + 1) * 16))) for i in range(4)]
    close(path, got, torch.cat(stepped(parts), dim=1))


def test_a_fused_projection_with_unequal_parts_is_its_heads(path):
    shape = (64 + 32 + 32, 24)
    (got,) = stepped([whole(shape)], split_sizes=[64, 32, 32], heads=[4, 2, 2])
    parts = [cut(shape, slice(i * 16, (i + 1) * 16)) for i in range(8)]
    close(path, got, torch.cat(stepped(parts)))


@pytest.mark.parametrize(
    "keys", [{"heads": 3}, {"heads": 5, "head_axis": 1}, {"split_sizes": [4, 5], "heads": [1, 1]}]
)
def test_counts_that_do_not_divide_are_errors(keys):
    with pytest.raises(ValueError, match=r"\[8, 8\]"):
        pion.Pion([parameter((8, 8))], **keys)


def test_a_convolution_is_its_folded_matrix(path):
    # the scale too is that of (out, in kh kw): timm#2791 took (kh, kw)
    shape = (32, 4, 3, 3)
    weight, gradient = whole(shape)
    (conv,) = stepped([(weight, gradient)], fold="conv")
    (linear,) = stepped([(weight.flatten(1), lambda step: gradient(step).flatten(1))])
    close(path, conv.flatten(1), linear)


def test_channels_last_changes_nothing():
    shape = (16, 8, 3, 3)
    plain = torch.nn.Parameter(gaussian(shape, 1))
    strided = torch.nn.Parameter(gaussian(shape, 1).to(memory_format=torch.channels_last))
    assert not strided.is_contiguous()
    a, b = (pion.Muon([p], lr=0.1, fold="conv") for p in (plain, strided))
    for step in range(3):
        plain.grad = gaussian(shape, step)
        strided.grad = gaussian(shape, step).to(memory_format=torch.channels_last)
        a.step(), b.step()
    assert torch.equal(plain, strided)
    assert strided.is_contiguous(memory_format=torch.channels_last)


def test_transposed_views_are_stepped_in_place():
    plain = parameter((6, 4))
    view = torch.nn.Parameter(plain.detach().t().contiguous().t())
    a, b = pion.Muon([plain], lr=0.1), pion.Muon([view], lr=0.1)
    run(a, [plain], 3), run(b, [view], 3)
    assert torch.equal(plain, view)


def test_stacks_are_matrices_each(path):
    shape = (3, 16, 24)
    (got,) = stepped([whole(shape)], fold="stack")
    parts = stepped([cut(shape, i) for i in range(3)])
    for i in range(3):
        close(path, got[i], parts[i])
    (folded,) = stepped([whole(shape)], fold="conv")
    (flat,) = stepped([(whole(shape)[0].flatten(1), lambda s: gaussian(shape, 10 + s).flatten(1))])
    close(path, folded.flatten(1), flat)


def test_a_transposed_weight_is_its_transpose(path):
    # GPT-2's Conv1D stores (in, out); "original" is the scale that tells rows from columns
    shape = (16, 64)
    (stored,) = stepped([whole(shape)], transposed=True, scale="original")
    weight, gradient = whole(shape)
    (plain,) = stepped([(weight.t(), lambda step: gradient(step).t())], scale="original")
    assert (stored - plain.t()).abs().max() <= 3 * 0.2 * 12 * 30 * 2.0**-24


def test_a_stack_stored_in_out_is_its_transposes(path):
    # experts of GPT-OSS and Llama 4; "spectral" is sqrt(out / in)
    shape = (3, 16, 64)
    (stored,) = stepped([whole(shape)], fold="stack", transposed=True, scale="spectral")
    weight, gradient = whole(shape)
    for i in range(3):
        one = (weight[i].t(), lambda step, i=i: gradient(step)[i].t())
        (plain,) = stepped([one], scale="spectral")
        # as above, a step of 0.1 sqrt(64 / 16)
        assert (stored[i] - plain.t()).abs().max() <= 3 * 0.2 * 12 * 30 * 2.0**-24


@pytest.mark.parametrize("shape", [(3, 16, 8), (8, 3, 3, 3)])
def test_more_dimensions_have_to_be_decided(shape):
    for make in (pion.Muon, pion.Pion):
        with pytest.raises(ValueError, match=r'fold must be chosen .* fold="stack" or fold="conv"'):
            make([parameter(shape)])
    with pytest.raises(ValueError, match="fold must be chosen"):
        pion.PionAdamW([{"params": [parameter(shape)], "rule": "muon"}])


def test_a_state_saved_before_folds_were_asked_for_loads():
    made = pion.Muon([parameter((3, 8, 8))], fold="stack")
    run(made, made.param_groups[0]["params"], 1)
    saved = made.state_dict()
    saved["param_groups"][0]["fold"] = "auto"
    again = pion.Muon([parameter((3, 8, 8))], fold="stack")
    again.load_state_dict(saved)
    assert again.param_groups[0]["fold"] == "stack"
    run(again, again.param_groups[0]["params"], 1)


def test_empty_parameters_are_left_alone():
    empty = torch.nn.Parameter(torch.empty(0, 4))
    other = parameter((4, 4))
    optimizer = pion.Muon([empty, other], lr=0.1)
    empty.grad, other.grad = torch.empty(0, 4), gaussian((4, 4), 1)
    optimizer.step()
