# SPDX-License-Identifier: Apache-2.0
"""The thread pool that steps and maps of one process share."""

import os
import sys
import threading

from pion._pion import Stepper

_lock = threading.Lock()
_steppers: dict[tuple[int, int], Stepper] = {}  # by process and number of threads


def thread_count() -> int:
    """PION_NUM_THREADS, else torch's number of threads, else the CPUs of this process."""
    asked = os.environ.get("PION_NUM_THREADS")
    if asked is not None:
        if not asked.isdigit() or int(asked) < 1:
            raise ValueError(f"pion: PION_NUM_THREADS must be a positive integer, got {asked!r}")
        return int(asked)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return torch.get_num_threads()
    return len(os.sched_getaffinity(0))


def stepper() -> Stepper:
    """The pool of the present thread count. A forked process makes its own."""
    key = (os.getpid(), thread_count())
    found = _steppers.get(key)
    if found is None:
        with _lock:
            found = _steppers.setdefault(key, Stepper(key[1]))
    return found


def _after_fork():
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
