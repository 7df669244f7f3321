# SPDX-License-Identifier: Apache-2.0
"""Steps recorded on a device that is not there: fake tensors on "cuda", every operation's bytes,
the memory that is live, and whatever would make the host wait."""

import contextlib
import logging
import warnings
import weakref
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRODUCTS = ("bmm", "baddbmm", "mm", "addmm")
FREE = ("empty", "empty_strided", "new_empty", "detach", "device", "lift_fresh", "_unsafe_view")
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")


@contextlib.contextmanager
def fake_device():
    """Where PyTorch has no CUDA, copy_ asks for a device guard that is not there; its operation
    does not."""

    def copy(own, source, non_blocking=False):
        return torch.ops.aten.copy_.default(own, source, non_blocking)

    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), mock.patch.object(torch.Tensor, "copy_", copy):
            warnings.simplefilter("ignore")
            with FakeTensorMode():
                yield
    finally:
        logging.disable(logging.NOTSET)


class Recorder(TorchDispatchMode):
    """bytes: read and written by operations that are no products. peak: of memory made meanwhile.
    products: types of the matrices multiplied. waits: operations that wait for the device."""

    def __init__(self):
        super().__init__()
        self.bytes, self.live, self.peak, self.launches = 0, 0, 0, 0
        self.products, self.waits = [], []
        self._known = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.split("::")[1]
        if name in WAITS:
            self.waits.append(name)
        fused = name.startswith("_fused_")  # writes in place; of tensor rates there is no fake
        made = _tensors(None if fused else (result := func(*args, **kwargs)))
        given = _tensors((args, kwargs))
        if name in ("_to_copy", "copy_") and any(t.is_cuda for t in given) and (
            not made[0].is_cuda
        ):  # fmt: skip
            self.waits.append("to the host")
        fresh = [t for t in made if not any(_storage(t) is _storage(g) for g in given)]
        for tensor in fresh:
            self._allocate(tensor)
        if not (func.is_view or name in FREE):
            self._count(func, name, args, given, fresh)
        return None if fused else result

    def _count(self, func, name: str, args, given: list, fresh: list):
        self.launches += 1
        if name.rstrip("_") in PRODUCTS:
            self.products.append(given[-1].dtype)
            return
        total = sum(map(_bytes, given)) + sum(map(_bytes, fresh))
        for argument, value in zip(func._schema.arguments, args, strict=False):
            # kernels read their gradients, unless they unscale them
            if argument.alias_info is not None and argument.name != "grads":
                total += sum(map(_bytes, _tensors(value)))
        if name in ("copy_", "_foreach_copy_", "zero_", "fill_"):
            total -= sum(map(_bytes, _tensors(args[0])))  # not read
        self.bytes += total

    def _allocate(self, tensor):
        storage = _storage(tensor)
        if storage in self._known:
            return
        size = self._known[storage] = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int):
        self.live -= size


def _tensors(tree) -> list:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storage(tensor):
    return tensor.untyped_storage()


def _bytes(tensor) -> int:
    return tensor.numel() * tensor.element_size()
