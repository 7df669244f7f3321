# SPDX-License-Identifier: Apache-2.0
"""python -m pion_track LIBRARY RUN: follows RUN/metrics.jsonl until standard input closes.

The run starts this as a child process and holds the other end of the pipe, so that the mirror
ends with the run, however the run ends. A resumed run is written again up to its end: what a
tracker already has of the same steps is replaced (TensorBoard) or continued (wandb, trackio).

python -m pion_track --check LIBRARY: exits with 1 if the library cannot be imported.
"""

import importlib
import os
import select
import sys
import tomllib
from pathlib import Path

from pion_track.scalars import scalars
from pion_track.writers import MODULES, WRITERS

POLL_SECONDS = 0.5


def check(library):
    """0 if the library can be imported, else 1 with the reason on standard error."""
    try:
        importlib.import_module(MODULES[library])
    except ImportError as error:
        print(f"pion_track: {error}", file=sys.stderr)
        return 1
    return 0


def writer_for(library, run):
    """The writer for a run's folder. Projects are $WANDB_PROJECT and $TRACKIO_PROJECT, else pion."""
    config = tomllib.loads((run / "recipe.toml").read_text())  # the resolved recipe
    project = os.environ.get(f"{library.upper()}_PROJECT", "pion")
    folder = run
    if library == "tensorboard":
        folder, config = run / "tensorboard", None
        if folder.is_symlink():  # its files would be removed and written where it leads
            raise SystemExit(f"pion_track: {folder} must be a folder of the run, got a link")
        # a resumed run has its whole metrics.jsonl mirrored again
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
    return WRITERS[library](folder, run.name, project, config)


def follow(path, ended):
    """Yields the file's whole lines as they appear; ends after the last one once ended()."""
    pending = b""
    with open(path, "rb") as file:
        while True:
            last_round = ended()
            while chunk := file.read(1 << 16):
                pending += chunk
                *lines, pending = pending.split(b"\n")
                yield from lines
            if last_round:
                return


def stdin_closed():
    """Waits up to POLL_SECONDS; true once the other end of the pipe is gone."""
    readable, _, _ = select.select([sys.stdin], [], [], POLL_SECONDS)
    return bool(readable) and os.read(sys.stdin.fileno(), 1) == b""


def main(arguments):
    if len(arguments) != 2 or (arguments[0] == "--check" and arguments[1] not in MODULES):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "--check":
        return check(arguments[1])
    library, run = arguments[0], Path(arguments[1])
    writer = writer_for(library, run)
    try:
        for line in follow(run / "metrics.jsonl", stdin_closed):
            step, values, texts = scalars(line)
            writer.write(step, values, texts)
    finally:
        writer.close()
    return 0


sys.exit(main(sys.argv[1:]))
