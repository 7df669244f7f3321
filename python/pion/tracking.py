# SPDX-License-Identifier: Apache-2.0
"""track: metrics and optimizer statistics of a training loop, to a tracker's own library."""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("tensorboard", "wandb", "trackio")
_OF_ENTRIES = ("name", "rule", "lr", "gradient_norm", "update_rms", "skipped")


class Log:
    """What track() yields: log(step, metrics, optimizer=None)."""

    def __init__(self, writer):
        self._writer = writer

    def __call__(self, step: int, metrics: dict | None = None, *, optimizer=None):
        """Writes numbers by name (numbers or tensors of one entry), and under optimizer/... what
        the optimizer's last step did to each parameter: update_rms, directions_passed, lr and the
        other figures of its statistics(). NaN and Inf of statistics are left out."""
        values = {name: _number(name, value) for name, value in (metrics or {}).items()}
        if optimizer is not None:
            values |= _statistics_of(optimizer)
        self._writer.write(int(step), values, {})

    def text(self, step: int, name: str, text: str):
        """Writes a text, where the tracker has a place for it."""
        self._writer.write(int(step), {}, {name: text})


@contextlib.contextmanager
def track(
    library: str,
    *,
    project: str = "pion",
    name: str | None = None,
    folder: str = "runs",
    config: dict | None = None,
) -> Iterator[Log]:
    """A logger to "tensorboard", "wandb" or "trackio", closed at the end of the block.

        with pion.track("wandb", project="tiny", config={"lr": 3e-3}) as log:
            ...
            log(step, {"loss": loss}, optimizer=optimizer)

    project, name   of the run, as the tracker shows them; name is the time by default
    folder          TensorBoard's event files lie in folder/project/name, W&B's run in folder/wandb;
                    Trackio has its own place, TRACKIO_DIR
    config          settings, shown beside the run

    WANDB_MODE=offline keeps W&B's run on this machine; Trackio is local anyway.
    """
    if library not in LIBRARIES:
        names = " ".join(f'"{each}"' for each in LIBRARIES)
        raise ValueError(f"track: library must be one of {names}, got {library!r}")
    from pion_track.writers import MODULES, WRITERS

    name = name or time.strftime("%Y-%m-%d_%H-%M-%S")
    place = Path(folder)
    if library == "tensorboard":
        place = place / project / name
    if library != "trackio":
        place.mkdir(parents=True, exist_ok=True)
    try:
        writer = WRITERS[library](place, name, project, config or {})
    except ModuleNotFoundError as error:
        wanted = MODULES[library].partition(".")[0]
        if (error.name or "").partition(".")[0] != wanted:
            raise
        raise ModuleNotFoundError(
            f'track: "{library}" needs its library, which is not installed; pip install {wanted}',
            name=error.name,
        ) from None
    try:
        yield Log(writer)
    finally:
        writer.close()


def _number(name: str, value) -> float:
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"track: {name} must be a number or a tensor of one entry, got {value!r:.60}"
        ) from None


def _statistics_of(optimizer) -> dict:
    from pion_track.scalars import statistics_scalars

    from pion.optimizer import Optimizer

    while not isinstance(optimizer, Optimizer):  # Accelerate's and Lightning's wrappers
        wrapped = getattr(optimizer, "optimizer", None)
        if wrapped is None:
            raise ValueError(
                f"track: optimizer must be one of pion, got {type(optimizer).__name__}; log what "
                "another optimizer knows as metrics"
            )
        optimizer = wrapped
    if not optimizer._collect:
        raise ValueError(
            "track: the optimizer must keep statistics, got one that does not; call "
            "optimizer.collect_statistics() before its step"
        )
    kept = [
        # a rule for entries has no directions, and 0 for all figures of a spectrum
        each if each.get("directions") else {k: v for k, v in each.items() if k in _OF_ENTRIES}
        for each in optimizer.statistics()
    ]
    values = statistics_scalars(kept)
    return {key: float(value) for key, value in values.items() if math.isfinite(value)}
