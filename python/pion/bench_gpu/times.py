# SPDX-License-Identifier: Apache-2.0
"""A time for what was recorded, by a model of the device that a reader can do by hand."""

from typing import NamedTuple


class Device(NamedTuple):
    """Peak rates of a data sheet, dense."""

    name: str
    flops: dict  # a second, by type of the operands
    bandwidth: float  # bytes a second
    launch: float = 5e-6  # seconds from one kernel to the next, of the host or of the device


_HOPPER = {"bf16": 989e12, "f16": 989e12, "tf32": 494e12, "f32": 67e12, "f64": 67e12}
DEVICES = {
    "h100": Device("H100 SXM", _HOPPER, 3.35e12),
    "h200": Device("H200", _HOPPER, 4.8e12),
}

ASSUMPTIONS = """\
A kernel takes the longest of three: its products at the peak rate for their operands' type, its bytes
at the peak bandwidth, {launch:g} us. Kernels follow each other; a step is their sum. {name}: {rates}
TFLOP/s, {bandwidth:g} TB/s. So nothing is assumed of how near a kernel comes to its peak (small products
do not), of caches, of what the host needs beside its launches; Triton's products count at the rate of
cuBLAS'. Bytes of everything but products are per weight, and so is memory: at its peak, beside weights,
gradients and state."""


def seconds(operations: list, device: Device) -> float:
    """The modelled time of recorded operations."""
    return sum(
        max(
            operation.launches * device.launch,
            operation.flops / device.flops[operation.type] if operation.type else 0.0,
            operation.bytes / device.bandwidth,
        )
        for operation in operations
    )


def assumptions(device: Device) -> str:
    rates = ", ".join(f"{key} {value / 1e12:g}" for key, value in device.flops.items())
    return ASSUMPTIONS.format(
        launch=device.launch * 1e6,
        name=device.name,
        rates=rates,
        bandwidth=device.bandwidth / 1e12,
    )
