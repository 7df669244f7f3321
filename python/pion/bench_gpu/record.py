# SPDX-License-Identifier: Apache-2.0
"""Recorder: every operation of a step on a device, real or fake: FLOP of products by the type of
their operands, bytes, launches, waits, and the memory at its peak.

    with FakeTensorMode():
        ...                        # parameters, gradients, state on "cuda"; no GPU is needed
        with Recorder() as record:
            optimizer.step()
    record.flops()["f16"], record.bytes(), record.launches(), record.peak_bytes

What is counted:
- Bytes: what an operation reads and writes, each tensor once; a broadcast dimension is one entry.
- Launches: one an operation; of a foreach operation as many as its kernel needs. A product with an
  added matrix that is not written in place: two, since ATen copies that matrix into the result
  first. Views, allocations and operations on the CPU: none.
- Waits: a value read by the host, a copy between host and device that blocks, a solver's checks.
- Peak memory: what lives of the tensors made in the step, in blocks of 512 bytes as CUDA's
  allocator gives them; without its rounding to larger ones and without cuBLAS' workspaces.
"""

import collections
import math
import weakref
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TYPES = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
}
_PRODUCTS = {
    "mm": 0,
    "bmm": 0,
    "addmm": 1,
    "baddbmm": 1,
    "addmm_": 1,
    "baddbmm_": 1,
}  # left operand
_OWN_PRODUCTS = {}  # of other libraries, by name: FLOP of their arguments, and the left operand
_SOLVERS = ("_linalg_svd", "_linalg_eigh", "linalg_eig")  # they look at an info value
_FREE = (
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("device", "_record_function_enter_new", "_record_function_exit", "lift_fresh", "detach"),
)
_WRITTEN_ONLY = ("copy_", "fill_", "zero_", "_foreach_copy_", "_foreach_zero_", "normal_")
_READ_BY_HOST = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")
# of ATen's MultiTensorApply.cuh, with the kernel arguments of CUDA 12.1 and later
_CHUNK, _BLOCKS = 65536, 2240  # entries of a block; blocks of a launch
_TENSORS = (770, 448, 336, 252, 210)  # of a launch, by the number of lists
_CAT = 128  # tensors that one launch of cat copies
_BLOCK_BYTES = 512


class Operation(NamedTuple):
    """One operation on the device."""

    name: str
    launches: int
    flops: float  # of a product, else 0
    type: str  # of a product's operands, else ""
    bytes: int


def count_product(name: str, flops):
    """Tells what an operation outside ATen computes: flops(*its arguments) gives (FLOP, an
    operand). `name` has no namespace: "symmetric_product"."""
    _OWN_PRODUCTS[name] = flops


class Recorder(TorchDispatchMode):
    """Records while it is active; within a FakeTensorMode for a device that is not there."""

    def __init__(self, device: str = "cuda"):
        super().__init__()
        self.device, self.operations, self.waits = device, [], []
        self.live_bytes = self.peak_bytes = 0
        self._known = set()  # storages that are not new

    def flops(self) -> dict[str, float]:
        """FLOP of products by the type of their operands."""
        total = collections.Counter()
        for operation in self.operations:
            if operation.type:
                total[operation.type] += operation.flops
        return dict(total)

    def launches(self) -> int:
        return sum(operation.launches for operation in self.operations)

    def bytes(self, products: bool = False) -> int:
        """Read and written by everything but products, or by products."""
        return sum(o.bytes for o in self.operations if bool(o.type) == products)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        given = _tensors((args, kwargs))
        here = [t for t in given if self._is_here(t)]
        if name == "_local_scalar_dense" and here:
            self.waits.append(name)
            return True if given[0].dtype == torch.bool else 1  # a fake tensor has no value
        before = {_storage(t) for t in given}
        self._known |= before
        # fused optimizers write in place and return nothing; not all of them know fake tensors
        skipped = name.startswith("_fused_") and isinstance(args[0][0], FakeTensor)
        result = None if skipped else func(*args, **kwargs)
        made = _tensors(result)
        fresh = [t for t in made if _storage(t) not in before and self._is_here(t)]
        for tensor in fresh:
            self._allocate(tensor)
        if name not in _FREE and (here or fresh):
            self._count(func, name, args, kwargs, here, fresh)
            if self._blocks(name, given, made, args, kwargs):
                self.waits.append(name)
        return result

    def _is_here(self, tensor) -> bool:
        return tensor.device.type == self.device

    def _count(self, func, name: str, args, kwargs, here: list, fresh: list):
        written = _written(func, args, kwargs)
        if not fresh and not written and name not in _READ_BY_HOST:
            return  # a view
        unread = {id(t) for t in written} if name in _WRITTEN_ONLY else _outputs(kwargs)
        seen, total = set(), 0
        for tensor in here:
            if id(tensor) not in unread and id(tensor) not in seen:
                total += _bytes(tensor)
            seen.add(id(tensor))
        total += sum(_bytes(t) for t in [*written, *fresh] if self._is_here(t))
        flops, type_ = _product(name, args, kwargs)
        launches = _launches(name, args)
        if _PRODUCTS.get(name) == 1:
            launches, total = _with_copy(name, args, kwargs, fresh, launches, total)
        self.operations.append(Operation(name, launches, flops, type_, total))

    def _blocks(self, name: str, given: list, made: list, args, kwargs) -> bool:
        """Whether the host waits for the device."""
        if name in _READ_BY_HOST or name in _SOLVERS:
            return True
        if name in ("_to_copy", "copy_"):
            devices = {t.device.type for t in [*given, *made]}
            waits = not (
                kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            )
            return len(devices) > 1 and waits
        return False

    def _allocate(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // _BLOCK_BYTES) * _BLOCK_BYTES
        if key in self._known:
            return
        self._known.add(key)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int):
        self.live_bytes -= size
        self._known.discard(key)  # the address may come again


def _tensors(tree) -> list:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storage(tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensor) -> int:
    """Of its entries, a broadcast one once."""
    own = [n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or n == 0]
    return math.prod(own) * tensor.element_size()


def _written(func, args, kwargs) -> list:
    """Tensors that the schema says are written."""
    result = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        if argument.name in kwargs:
            result += _tensors(kwargs[argument.name])
        elif index < len(args):
            result += _tensors(args[index])
    if func._schema.name.startswith("aten::_fused_") and kwargs.get("grad_scale") is None:
        unscaled = {id(t) for t in args[1]}  # gradients are written where they are unscaled
        result = [t for t in result if id(t) not in unscaled]
    return result


def _outputs(kwargs) -> set:
    return {id(t) for t in _tensors(kwargs.get("out"))}


def _product(name: str, args, kwargs) -> tuple[float, str]:
    """(FLOP, type of the operands), or (0, "")."""
    if name in _OWN_PRODUCTS:
        flops, operand = _OWN_PRODUCTS[name](*args, **kwargs)
        return flops, _type(operand)
    if name not in _PRODUCTS:
        return 0.0, ""
    left, right = args[_PRODUCTS[name]], args[_PRODUCTS[name] + 1]
    return 2.0 * left.numel() * right.shape[-1], _type(left)


def _type(operand) -> str:
    if operand.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return "tf32"
    return TYPES[operand.dtype]


def _with_copy(name: str, args, kwargs, fresh: list, launches: int, total: int):
    """beta C + alpha A B: C is copied into the result, which the product reads and writes."""
    scale = kwargs.get("beta", 1)
    in_place = name.endswith("_") or kwargs.get("out") is args[0]
    if scale == 0:
        return launches, total - _bytes(args[0])
    if in_place:
        return launches, total
    target = fresh[0] if fresh else kwargs["out"]
    return launches + 1, total + 2 * _bytes(target)


def _launches(name: str, args) -> int:
    if name in ("cat", "stack"):
        return -(-len(args[0]) // _CAT)
    if not name.startswith(("_foreach_", "_fused_", "_amp_foreach")):
        return 1
    lists = [a for a in args if isinstance(a, (list, tuple)) and _tensors(a)]
    if name.startswith("_foreach_") and not _packed(lists):
        return len(lists[0])
    steps = name.startswith("_fused_adam")  # a list of its own, which is not packed
    depth = min(len(lists) - steps, len(_TENSORS))
    launches = _packed_launches([t.numel() for t in lists[0]], depth)
    return launches + 1 if name.startswith("_foreach_norm") else launches  # and one that sums


def _packed(lists: list) -> bool:
    """Whether ATen has one kernel for the lists: one type each, dense, alike in shape."""
    first = lists[0]
    return all(
        len({t.dtype for t in own}) == 1
        and all(
            t.shape == f.shape and t.stride() == f.stride() and _is_dense(t)
            for t, f in zip(own, first, strict=True)
        )
        for own in lists
    )


def _is_dense(tensor) -> bool:
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.numel() == 0 or extent == tensor.numel()


def _packed_launches(entries: list[int], depth: int) -> int:
    """As multi_tensor_apply: a launch is full with so many tensors, or so many blocks."""
    launches = blocks = tensors = 0
    for size in entries:
        if size == 0:
            continue
        tensors += 1
        left = -(-size // _CHUNK)
        while left:
            taken = min(left, _BLOCKS - blocks)
            left, blocks = left - taken, blocks + taken
            if blocks == _BLOCKS or (left == 0 and tensors == _TENSORS[depth - 1]):
                launches, blocks, tensors = launches + 1, 0, 1 if left else 0
    return launches + (1 if blocks else 0)
