# SPDX-License-Identifier: Apache-2.0
"""Names of parameters without what wrappers put into them: torch.compile, DataParallel, FSDP and
activation checkpointing rename a model's parameters, which stay the same."""

from collections.abc import Iterable

WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_OUTER = "module."  # of all names: DistributedDataParallel, DataParallel, AveragedModel


class PlainNames:
    """Takes wrappers out of the names of one model. A part called "module" is one where all of the
    names begin with it."""

    def __init__(self, names: Iterable[str]):
        names = list(names)
        without = [_without_wrappers(name) for name in names]
        self._outer = 0
        while without and all(name.startswith(_OUTER) for name in without):
            without = [name.removeprefix(_OUTER) for name in without]
            self._outer += 1
        self._distinct = len(set(without)) == len(set(names))

    def __call__(self, name: str) -> str:
        """Of a name, the prefix of one, or a glob."""
        if not self._distinct:  # some differ in their wrappers alone
            return name
        name = _without_wrappers(name)
        for _ in range(self._outer):
            name = "" if name == _OUTER[:-1] else name.removeprefix(_OUTER)
        return name


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def plain(names: Iterable[str]) -> dict[str, str]:
    """{name: the same without wrappers}, for all names of a model."""
    names = list(names)
    of = PlainNames(names)
    return {name: of(name) for name in names}
