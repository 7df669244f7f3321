# SPDX-License-Identifier: Apache-2.0
"""offload: an optimizer whose state and master weights live in host memory and whose steps run on
the CPU, while copies to and from the device overlap with them."""

import torch

from pion import cpu_step
from pion import state as states
from pion._pion import Slot
from pion.optimizer import check_own
from pion.threads import stepper

_CHUNK = 1 << 24  # entries that travel and are stepped together: 64 MiB of f32
_PLACES = 3  # chunks that are staged at a time: one arrives, one is stepped, one leaves
_ALIGNED = 64  # bytes of a cache line


def offload(optimizer):
    """Moves the state of an optimizer of pion to host memory and its steps to the CPU's kernels.

    state["master"] becomes an f32 (f64 for f64) copy of every parameter; the parameter gets its
    rounding. On CUDA gradients come and weights go through pinned memory on streams of their own,
    a chunk of parameters at a time, so that copies overlap with the step. A write to a parameter
    by somebody else is noticed by its version and taken over (one through `.data` is not: call
    optimizer.host.refresh() after it). Returns the optimizer, which keeps its schedulers.
    """
    check_own(optimizer, "offload")
    if optimizer.host is not None:
        raise ValueError("offload: the optimizer must not be offloaded already")
    host = Host()
    for own in optimizer.state.values():
        for key, value in own.items():
            own[key] = value.cpu()
    optimizer.host = host
    optimizer._runs.clear()
    return optimizer


class Host:
    """Staging memory, streams, and what is known of the weights on the device."""

    def __init__(self):
        self._versions = {}  # by parameter: its version after our last write
        self._rings = {}  # by device: staging memory, whose places take turns
        self._staged = {}  # by parameter of the chunks on their way: gradient, weight, was it read
        self._streams = {}  # by device: (to the host, to the device)

    def refresh(self):
        """Takes every weight from the device in the next step."""
        self._versions.clear()

    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        self.__init__()

    def step(self, optimizer, work: list) -> list[str]:
        for cell, _, state in work:
            if not cell.aimed:  # what a later chunk would refuse is refused before the first
                cpu_step.check_state(state, cell.parameter, cell.name)
        messages, chunks = [], _chunks(work)
        arriving = [self._fetch(chunk, 0) for chunk in chunks[:1]]
        for index, chunk in enumerate(chunks):
            if index + 1 < len(chunks):  # the next one travels while this one is stepped
                arriving.append(self._fetch(chunks[index + 1], index + 1))
            for event in arriving[index]:
                event.synchronize()
            messages += self._step_chunk(optimizer, chunk)
            self._send(chunk, index)
        self._join()
        for cell, _, _ in work:
            torch.autograd.graph.increment_version(cell.parameter)
            self._versions[cell.parameter] = _version(cell.parameter)
        self._staged.clear()
        return messages

    def _step_chunk(self, optimizer, chunk: list) -> list[str]:
        kept, slots = [], []
        for cell, _, state in chunk:
            gradient, weight, read = self._staged[cell.parameter]
            if read:  # a loaded master that rounds to the weight stays
                master = state["master"]
                same = master.to(weight.dtype) == weight
                master.copy_(torch.where(same, master, weight.to(master.dtype)))
            slots.append(_host_slot(cell, gradient, state, kept))
        messages = stepper().step(slots, optimizer._collect)
        if optimizer._collect:
            optimizer._statistics += [cpu_step.figures(cell) for cell, _, _ in chunk]
        return messages

    def _fetch(self, chunk: list, turn: int) -> list:
        """Starts copies of gradients, and of weights that somebody else has written, to the host.
        Returns events to wait for."""
        events = []
        for device, items in _by_device(chunk).items():
            place = self._rings.setdefault(device, _Ring(device)).place(turn)
            place.clear(_staged_bytes(items))
            stream = self._stream(device, 0)
            if stream is not None:
                stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for cell, gradient, state in items:
                    self._fetch_one(cell, gradient, state, place)
            if stream is not None:
                events.append(stream.record_event())
        return events

    def _fetch_one(self, cell, gradient, state: dict, place):
        parameter = cell.parameter
        states.fill(state, parameter, states.buffers_of(cell.plan.rule, cell.group), False, "cpu")
        known = self._versions.get(parameter) == _version(parameter) and "master" in state
        if "master" not in state:
            state["master"] = torch.zeros(parameter.shape, dtype=states.work_type(parameter))
        staged = place.take(parameter.shape, gradient.dtype)
        staged.copy_(gradient, non_blocking=True)
        if gradient.is_cuda:  # its memory must not be reused before the copy is done
            gradient.record_stream(torch.cuda.current_stream(gradient.device))
        weight = place.take(parameter.shape, parameter.dtype)
        if not known:
            weight.copy_(parameter, non_blocking=True)
        self._staged[parameter] = (staged, weight, not known)

    def _send(self, chunk: list, turn: int):
        """Rounds the masters and starts the copies to the device."""
        for device, items in _by_device(chunk).items():
            stream = self._stream(device, 1)
            with torch.cuda.stream(stream):
                for cell, _, state in items:
                    weight = self._staged.pop(cell.parameter)[1]
                    weight.copy_(state["master"])
                    cell.parameter.copy_(weight, non_blocking=True)
            if stream is not None:
                self._rings[device].place(turn).left = stream.record_event()

    def _stream(self, device, which: int):
        if device.type != "cuda":
            return None
        if device not in self._streams:
            self._streams[device] = (torch.cuda.Stream(device), torch.cuda.Stream(device))
        return self._streams[device][which]

    def _join(self):
        """What follows on the device sees the new weights."""
        for device, (_, sending) in self._streams.items():
            torch.cuda.current_stream(device).wait_stream(sending)


class _Ring:
    """Staging memory of a device: one place arrives, one is stepped, one leaves."""

    def __init__(self, device):
        self._places = [_Place(device.type == "cuda") for _ in range(_PLACES)]

    def place(self, turn: int):
        return self._places[turn % _PLACES]

    def bytes(self) -> int:
        return sum(place.memory.numel() for place in self._places)


class _Place:
    """Memory for a chunk's gradients and weights, pinned for CUDA; as large as the largest was."""

    def __init__(self, pin: bool):
        self._pin, self._used = pin, 0
        self.memory = torch.empty(0, dtype=torch.uint8)
        self.left = None  # an event: the last chunk's weights are on the device

    def clear(self, size: int):
        """Waits until what was here has left, and makes room for so many bytes."""
        if self.left is not None:
            self.left.synchronize()
            self.left = None
        self._used = 0
        if self.memory.numel() < size:
            self.memory = None  # before its successor is there
            self.memory = torch.empty(size, dtype=torch.uint8, pin_memory=self._pin)

    def take(self, shape, dtype) -> torch.Tensor:
        size = shape.numel() * dtype.itemsize
        piece = self.memory.narrow(0, self._used, size).view(dtype).view(shape)
        self._used += _padded(size)
        return piece


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _staged_bytes(items: list) -> int:
    return sum(
        _padded(cell.numel * gradient.dtype.itemsize) + _padded(cell.numel * cell.dtype.itemsize)
        for cell, gradient, _ in items
    )


def _host_slot(cell, gradient, state: dict, kept: list) -> Slot:
    """The master as an f32 (f64) weight of its own: low precision is only on the device."""
    return cpu_step.aim(cell, state["master"], gradient, state, kept, master=False)


def _version(parameter) -> tuple:
    return parameter._version, parameter.data_ptr()


def _chunks(work: list) -> list[list]:
    chunks, entries = [[]], 0
    for item in work:
        if chunks[-1] and entries + item[0].parameter.numel() > _CHUNK:
            chunks.append([])
            entries = 0
        chunks[-1].append(item)
        entries += item[0].parameter.numel()
    return chunks


def _by_device(chunk: list) -> dict:
    devices = {}
    for item in chunk:
        devices.setdefault(item[0].parameter.device, []).append(item)
    return devices
