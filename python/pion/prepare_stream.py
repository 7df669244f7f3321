# SPDX-License-Identifier: Apache-2.0
"""Problems one batch after another: read, split, tokenized, counted. No step keeps them all."""

import argparse
import concurrent.futures
import dataclasses
import hashlib
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pion import prepare_sources, prepare_tokens
from pion.outside_text import json_value
from pion.prepare_file import HELD_OUT, TRAIN, PreparedProblem, ProblemWriter
from pion.prepare_sources import PrepareError, Record

CHECKED = 200  # problems whose decoding is compared with the tokenizer's


def json_option(text: str | None, flag: str) -> dict:
    if text is None:
        return {}
    value = json_value(text, flag, PrepareError)
    if not isinstance(value, dict):
        raise PrepareError(f"{flag}: must be a JSON object, got {text}")
    return value


class Progress:
    """One line on a terminal; nothing elsewhere."""

    def __init__(self, what: str):
        self.what, self.shown = what, sys.stderr.isatty()

    def show(self, count: int, end: str = "") -> None:
        if self.shown:
            print(f"\r{self.what} {count}", end=end, file=sys.stderr, flush=True)


# ---- which problems


def is_held_out(text: str, fraction: float) -> bool:
    """By content: the same problem is in the same split wherever it stands."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def digest(text: str) -> bytes:
    """16 bytes in place of a text: two of 10^9 are equal by chance with 10^-21."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def open_source(options: argparse.Namespace, source: str) -> prepare_sources.Source:
    """A source whose records end after --limit, and which has one at least."""
    columns = prepare_sources.Columns(
        options.prompt_column, options.answer_column, options.solution_column
    )
    gym = {
        "count": options.count or options.limit or 1000,
        "seed": options.seed or 0,
        "config": json_option(options.config, "--config"),
    }
    opened = prepare_sources.open_source(source, columns, options.format, gym, options.skip_broken)
    records = itertools.islice(opened.records, options.limit)
    first = next(records, None)
    if first is None:
        left = prepare_sources.counted(opened.skipped)
        raise PrepareError(f"{source}: no problem is left{left}")
    opened.records = itertools.chain([first], records)
    return opened


class Chosen:
    """The problems and their splits, in the order of the file. Can be gone through again."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.source = open_source(options, options.source)
        self.elsewhere = 0  # problems left out because they are held out
        self.held_out = set()  # their digests
        if options.held_out_from:
            held_out = open_source(options, options.held_out_from)
            self.held_out = {digest(each.text) for each in held_out.records}

    def __iter__(self) -> Iterator[tuple[Record, int]]:
        if not self.options.held_out_from:
            fraction = 0.05 if self.options.held_out is None else self.options.held_out
            for each in self.source.records:
                yield each, HELD_OUT if is_held_out(each.text, fraction) else TRAIN
            return
        for each in self.source.records:
            if digest(each.text) in self.held_out:
                self.elsewhere += 1
            else:
                yield each, TRAIN
        for each in open_source(self.options, self.options.held_out_from).records:
            yield each, HELD_OUT

    def again(self) -> None:
        """Begins anew."""
        self.source, self.elsewhere = open_source(self.options, self.options.source), 0


# ---- in tokens


@dataclasses.dataclass
class Lengths:
    count: int = 0
    total: int = 0
    longest: int = 0

    def add(self, length: int) -> None:
        self.count += 1
        self.total += length
        self.longest = max(self.longest, length)

    def __str__(self) -> str:
        return f"{self.total / self.count:.0f} (max {self.longest})" if self.count else "none"


class Tally:
    """What is known of problems that went by. `context`: prompts that fill it are counted."""

    def __init__(self, context: int | None):
        self.context, self.too_long = context, Lengths()
        self.prompts = {TRAIN: Lengths(), HELD_OUT: Lengths()}
        self.solutions = {TRAIN: Lengths(), HELD_OUT: Lengths()}
        self.left_out = Lengths()  # prompts beyond --max-prompt-tokens
        self.shortest_left_out = sys.maxsize
        self.first: Record | None = None
        self.some: list[PreparedProblem] = []  # a random sample
        self.random = random.Random(0)

    @property
    def count(self) -> int:
        return sum(each.count for each in self.prompts.values())

    def add(self, record: Record, problem: PreparedProblem) -> None:
        self.first = self.first or record
        self.prompts[problem.split].add(len(problem.prompt))
        if problem.solution:
            self.solutions[problem.split].add(len(problem.solution))
        if self.context and len(problem.prompt) >= self.context:
            self.too_long.add(len(problem.prompt))
        # a reservoir: every problem is in it with the same probability
        place = self.random.randrange(self.count)
        if len(self.some) < CHECKED:
            self.some.append(problem)
        elif place < CHECKED:
            self.some[place] = problem

    def leave_out(self, length: int) -> None:
        self.left_out.add(length)
        self.shortest_left_out = min(self.shortest_left_out, length)


def solution_of(record: Record, ending: str) -> str:
    """The worked answer; where a source gives steps alone, it ends as the verifier asks."""
    if not record.steps_only or not record.answer:
        return record.solution
    return "\n".join(part for part in (record.solution, ending.format(record.answer)) if part)


def encoded(
    encoder: prepare_tokens.Encoder, batch: list[tuple[Record, int]], ending: str
) -> list[PreparedProblem]:
    records = [record for record, _ in batch]
    tokens = encoder.encode(records, [solution_of(record, ending) for record in records])
    problems = []
    for (record, split), (prompt, solution) in zip(batch, tokens, strict=True):
        if not prompt:
            raise PrepareError(f"{record.where}: the prompt has no token")
        problems.append(
            PreparedProblem(prompt, solution, record.answer, record.extra, record.text, split)
        )
    return problems


def ahead(encode: Callable, batches: Iterator) -> Iterator[tuple]:
    """(batch, encode(batch)); the next batch is read while one is encoded, which takes no GIL."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        before = None
        for batch in batches:
            running = batch, pool.submit(encode, batch)
            if before:
                yield before[0], before[1].result()
            before = running
        if before:
            yield before[0], before[1].result()


def batches(chosen: Iterator, size: int) -> Iterator[list]:
    chosen = iter(chosen)
    while batch := list(itertools.islice(chosen, size)):
        yield batch


def context_of(tokenizer, folder: str) -> int | None:
    """The longest text of the model, in tokens, if the folder says."""
    path = Path(folder) / "config.json"
    if path.is_file():
        config = json_value(path.read_bytes(), str(path), PrepareError)
        longest = config.get("max_position_embeddings") if isinstance(config, dict) else None
        if isinstance(longest, int):
            return longest
    longest = tokenizer.model_max_length
    return longest if longest < 10**9 else None  # transformers' word for unknown is 10^30


def write_encoded(
    writer: ProblemWriter,
    encoder: prepare_tokens.Encoder,
    chosen: Chosen,
    ending: str,
    limit: int | None,
    context: int | None,
) -> Tally:
    """Adds all problems to the file but those whose prompt has more than `limit` tokens.

    Raises PrepareError if nothing is left of a split, or without `limit` a prompt fills the context.
    """
    progress, tally = Progress("problems tokenized"), Tally(context if limit is None else None)
    encode = lambda batch: encoded(encoder, batch, ending)
    for batch, problems in ahead(encode, batches(chosen, prepare_tokens.BATCH)):
        kept = []
        for (record, _), problem in zip(batch, problems, strict=True):
            if limit is not None and len(problem.prompt) > limit:
                tally.leave_out(len(problem.prompt))
                continue
            tally.add(record, problem)
            kept.append(problem)
        writer.add(kept)
        progress.show(tally.count)
    progress.show(tally.count, end="\n")
    check_tally(tally, limit)
    return tally


def check_tally(tally: Tally, limit: int | None) -> None:
    if tally.count == 0:
        raise PrepareError(
            f"--max-prompt-tokens {limit}: all {tally.left_out.count} prompts are longer, the "
            f"shortest has {tally.shortest_left_out} tokens; take a larger limit"
        )
    if tally.too_long.count:
        raise PrepareError(
            f"{tally.too_long.count} of {tally.count} prompts leave no room in the context of "
            f"{tally.context} tokens, the longest has {tally.too_long.longest}; "
            "--max-prompt-tokens N leaves out longer ones"
        )
    for split, name in ((TRAIN, "for training"), (HELD_OUT, "held out")):
        if not tally.prompts[split].count:
            raise PrepareError(
                f"of {tally.count} problems none is {name}; take more problems or another "
                "--held-out FRACTION"
            )
