# SPDX-License-Identifier: Apache-2.0
"""Which axes of an array are the matrix: from dimension numbers to (count, rows, cols)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from optax.contrib import MuonDimensionNumbers

from pion._pion import HeadLayout, Rule
from pion.jax.rates import is_function


class DimensionNumbers(NamedTuple):
    """optax.contrib.MuonDimensionNumbers, and how the matrix is cut into heads.

    reduction_axis  the inputs: what a layer sums over; one axis, or several as one
    output_axis     the outputs; all other axes are a batch of independent matrices
    heads           blocks of equal size with a norm, map and scale of their own
    head_axis       "output" for queries, keys and values, "reduction" for the output projection
    sizes           lengths of the parts of a fused projection; `heads` then has one count each
    """

    reduction_axis: int | Sequence[int] = 0
    output_axis: int | Sequence[int] = 1
    heads: int | Sequence[int] = 1
    head_axis: str = "output"
    sizes: Sequence[int] = ()


_OF_A_KERNEL = DimensionNumbers()
_OF_A_CONVOLUTION = DimensionNumbers((0, 1, 2), 3)  # flax.linen.Conv over images: HWIO


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a matrix as a batch of its blocks."""

    axis: int  # of (rows, cols)
    offset: int
    size: int
    heads: int

    def block(self, rows: int, cols: int) -> tuple[int, int]:
        length = self.size // self.heads
        return (length, cols) if self.axis == 0 else (rows, length)

    def cut(self, x: jax.Array) -> jax.Array:
        """(count, rows, cols) to (count heads, block rows, block cols)."""
        count, rows, cols = x.shape
        part = jax.lax.slice_in_dim(x, self.offset, self.offset + self.size, axis=1 + self.axis)
        length = self.size // self.heads
        if self.axis == 0:
            return part.reshape(count * self.heads, length, cols)
        part = part.reshape(count, rows, self.heads, length).swapaxes(1, 2)
        return part.reshape(count * self.heads, rows, length)

    def join(self, blocks: jax.Array, count: int) -> jax.Array:
        if self.axis == 0:
            return blocks.reshape(count, self.size, blocks.shape[2])
        parts = blocks.reshape(count, self.heads, *blocks.shape[1:]).swapaxes(1, 2)
        return parts.reshape(count, blocks.shape[1], self.size)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an array is read as `count` matrices of (rows, cols), which axis is cut into heads, and
    whether columns are the outputs; `batch` are the axes that count matrices, of a stack. An array
    whose inputs stand before its outputs, or the other way round, is read where it lies."""

    name: str
    shape: tuple[int, ...]
    permutation: tuple[int, ...]
    matrices: tuple[int, int, int]
    axis: int
    sizes: tuple[int, ...]
    heads: tuple[int, ...]
    transposed: bool
    batch: tuple[int, ...] = ()

    def to_matrices(self, x: jax.Array) -> jax.Array:
        return x.transpose(self.permutation).reshape(self.matrices)

    def from_matrices(self, x: jax.Array) -> jax.Array:
        order = [self.permutation.index(axis) for axis in range(len(self.shape))]
        return x.reshape([self.shape[axis] for axis in self.permutation]).transpose(order)

    def parts(self) -> list[Part]:
        sizes = self.sizes or (self.matrices[1 + self.axis],)
        offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        return [
            Part(self.axis, offset, size, heads)
            for offset, size, heads in zip(offsets, sizes, self.heads, strict=True)
        ]

    def scale(self, rule: Rule, block: tuple[int, int]) -> float:
        return rule.scale(*(reversed(block) if self.transposed else block))

    def active(self, gradient: jax.Array) -> jax.Array | None:
        """Of a stack true for every matrix whose gradient is not all zeros: the others had no part
        in the loss and are left alone, as a parameter without a gradient is."""
        if not self.batch:
            return None
        matrix = tuple(axis for axis in range(len(self.shape)) if axis not in self.batch)
        return jnp.any(gradient != 0, axis=matrix, keepdims=True)

    def as_json(self) -> dict:
        return {
            "axis": self.axis, "sizes": self.sizes, "heads": self.heads,
            "transposed": self.transposed, "stack": bool(self.batch),
        }  # fmt: skip


def _numbers_text(inputs, outputs) -> str:
    return f"DimensionNumbers({inputs}, {outputs})"


def default_numbers(where: str, name: str, shape: tuple[int, ...]) -> DimensionNumbers:
    """Of an array that no dimension numbers were given for."""
    if len(shape) == 2:
        return _OF_A_KERNEL
    if len(shape) == 4 and "conv" in name.lower():
        return _OF_A_CONVOLUTION
    if len(shape) < 2:
        raise ValueError(
            f"{where}: a matrix must have two dimensions or more, got {name} of shape "
            f"{list(shape)}; step it by another rule: multi_transform_with_muon, optax.partition"
        )
    raise ValueError(
        f"{where}: dimension_numbers must be given for {name} of shape {list(shape)}: a stack of "
        f"matrices ({_numbers_text(len(shape) - 2, len(shape) - 1)}), heads "
        f"({_numbers_text(len(shape) - 3, len(shape) - 1)}) and a convolution "
        f"({_numbers_text(tuple(range(len(shape) - 1)), len(shape) - 1)}) look alike"
    )


def _axes(where: str, name: str, shape, what: str, given) -> tuple[int, ...]:
    given = (given,) if isinstance(given, int) else tuple(given)
    rank = len(shape)
    if not given or any(not isinstance(a, int) or not -rank <= a < rank for a in given):
        raise ValueError(
            f"{where}: {what} must lie in [-{rank}, {rank}) for {name} of shape {list(shape)}, "
            f"got {list(given)}"
        )
    return tuple(a % rank for a in given)


def layout_of(where: str, name: str, shape: tuple[int, ...], numbers) -> Layout:
    """Throws ValueError that names the parameter if the numbers do not fit its shape."""
    if numbers is None:
        numbers = default_numbers(where, name, shape)
    if isinstance(numbers, MuonDimensionNumbers):
        numbers = DimensionNumbers(numbers.reduction_axis, numbers.output_axis)
    if not isinstance(numbers, DimensionNumbers):
        raise ValueError(  # noqa: TRY004 - as every bad argument
            f"{where}: dimension numbers must be a DimensionNumbers, an "
            f"optax.contrib.MuonDimensionNumbers or None, got {numbers!r} for {name}"
        )
    if len(shape) < 2:
        default_numbers(where, name, shape)  # throws
    inputs = _axes(where, name, shape, "reduction_axis", numbers.reduction_axis)
    outputs = _axes(where, name, shape, "output_axis", numbers.output_axis)
    if len({*inputs, *outputs}) != len(inputs) + len(outputs):
        raise ValueError(
            f"{where}: reduction_axis and output_axis must not share an axis, got "
            f"{list(inputs)} and {list(outputs)} for {name} of shape {list(shape)}"
        )
    if numbers.head_axis not in ("output", "reduction"):
        raise ValueError(
            f'{where}: head_axis must be "output" or "reduction", got {numbers.head_axis!r} '
            f"for {name}"
        )
    return _cut(where, name, tuple(shape), inputs, outputs, numbers)


def _cut(where, name, shape, inputs, outputs, numbers: DimensionNumbers) -> Layout:
    heads = (numbers.heads,) if isinstance(numbers.heads, int) else tuple(numbers.heads)
    if heads == (1,) and not numbers.sizes:  # the order of rows changes no singular value
        inputs, outputs = tuple(sorted(inputs)), tuple(sorted(outputs))
    transposed = min(inputs) < min(outputs)  # columns are the outputs
    first, second = (inputs, outputs) if transposed else (outputs, inputs)
    batch = tuple(a for a in range(len(shape)) if a not in inputs + outputs)
    axis = int((numbers.head_axis == "output") == transposed)

    def extent(axes):
        return math.prod(shape[a] for a in axes)

    between = first + batch + second
    if batch and heads == (1,) and not numbers.sizes and between == tuple(range(len(shape))):
        # heads between inputs and outputs are columns side by side
        permutation, axis, heads = between, 1, (extent(batch),)
        matrices = (1, extent(first), extent(batch + second))
        batch = ()
    else:
        permutation = batch + first + second
        matrices = (extent(batch), extent(first), extent(second))
    layout = Layout(
        name, shape, permutation, matrices, axis, tuple(numbers.sizes), heads, transposed, batch
    )
    if math.prod(shape):
        try:
            HeadLayout(axis, list(layout.sizes), list(heads), transposed).blocks(*matrices[1:])
        except ValueError as error:
            raise ValueError(f"{where}: {name} of shape {list(shape)}: {error}") from None
    return layout


def is_numbers(x) -> bool:
    return x is None or isinstance(x, DimensionNumbers | MuonDimensionNumbers)


def numbers_by_path(where: str, dimension_numbers, params) -> dict[tuple, Any] | None:
    """The tree, prefix or callable as {path: numbers}; None if nothing was given."""
    if dimension_numbers is None:
        return None
    if not is_numbers(dimension_numbers) and is_function(dimension_numbers):
        dimension_numbers = dimension_numbers(params)
    leaves, _ = jax.tree_util.tree_flatten_with_path(dimension_numbers, is_leaf=is_numbers)
    return {_keys(path): numbers for path, numbers in leaves}


def _keys(path) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def numbers_of(where: str, known: dict[tuple, Any], path):
    """The entry of a leaf, or of the subtree that holds it."""
    keys = _keys(path)
    for end in range(len(keys), -1, -1):
        if keys[:end] in known:
            return known[keys[:end]]
    raise ValueError(
        f"{where}: dimension_numbers must have an entry for {name_of(path)}, got a tree without "
        "it; None leaves a parameter to the other rule"
    )


def name_of(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "the parameter"
