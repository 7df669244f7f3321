# SPDX-License-Identifier: Apache-2.0
"""python -m pion.bench_gpu --count | --run; see docs/python.md."""

import argparse
import json
import sys

import torch

from pion.bench_gpu import count, measure, shapes, tables, times

_TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pion.bench_gpu",
        description="What a step on a GPU computes and moves, counted, or how long it takes.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--count", action="store_true", help="record a step; needs no GPU")
    what.add_argument("--run", action="store_true", help="measure steps on the CUDA device")
    parser.add_argument("--device", choices=times.DEVICES, default="h100", help="of the model")
    parser.add_argument("--weights", choices=_TYPES, default="f32", help="type of the weights")
    parser.add_argument("--layers", type=_positive, default=4, help="of every model; %(default)s")
    parser.add_argument("--case", default="", help="only cases whose name holds this")
    parser.add_argument("--seconds", type=float, default=2.0, help="--run: of every pair")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    asked = _parsed(arguments)
    cases = [case for case in shapes.cases(asked.layers) if asked.case in case.name]
    if not cases:
        names = ", ".join(case.name for case in shapes.cases(asked.layers))
        print(
            f"bench_gpu: --case must be in a name, got {asked.case!r} of {names}", file=sys.stderr
        )
        return 2
    dtype = _TYPES[asked.weights]

    def say(case):
        print(f"{case.name} ...", file=sys.stderr, flush=True)

    head = {"torch": torch.__version__, "weights": asked.weights}
    if asked.count:
        model = times.DEVICES[asked.device]
        rows = count.counted(cases, model, dtype, say)
        head |= {"device": model._asdict(), "counted": rows}
        text = times.assumptions(model) + "\n\n" + tables.of_counts(rows)
    else:
        try:
            device = measure.device_at_hand()
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        apart = measure.parity(device, dtype)
        rows = measure.measured(cases, device, asked.seconds, dtype, say)
        name = torch.cuda.get_device_name(device)
        head |= {"device": name, "parity": apart, "measured": rows}
        text = f"{name}, PyTorch {torch.__version__}\n\n" + tables.of_times(rows)
        text += "\n\n" + tables.of_parity(apart)
    print(text)
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as file:
            json.dump(head, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
