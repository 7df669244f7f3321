# SPDX-License-Identifier: Apache-2.0
"""Turns problems with checkable answers into one file that `pion train` maps.

    python -m pion.prepare train.jsonl --tokenizer MODEL --out problems.safetensors
    python -m pion.prepare reasoning-gym:chain_sum --count 2000 --tokenizer characters --out sums.safetensors

Sources, columns and the file are described in docs/data.md.
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from pion import prepare_file, prepare_sources, prepare_tokens
from pion.prepare_characters import (
    CHARACTERS,
    check_folder,
    folder_beside,
    write_character_tokenizer,
)
from pion.prepare_file import HELD_OUT, TRAIN, PreparedProblem
from pion.prepare_rows import shortened
from pion.prepare_sources import PrepareError, Record

BOX = "Please reason step by step, and put your final answer within \\boxed{}."
# verifier: (what a prompt asks for, how a solution ends)
ANSWER_FORMS = {
    "boxed": (BOX, "\\boxed{{{}}}"),
    "math_verify": (BOX, "\\boxed{{{}}}"),
    "hash": (
        'Please reason step by step, and end with "#### " and the final answer on a line.',
        "#### {}",
    ),
    "last_number": ("", "{}"),
    "reasoning_gym": (
        "Please reason step by step, and put your final answer between <answer> and </answer>.",
        "<answer>{}</answer>",
    ),
}
CHECKED = 200  # problems whose decoding is compared with the tokenizer's


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="python -m pion.prepare",
        description="Tokenizes problems with checkable answers into one file for pion.",
    )
    cli.add_argument(
        "source", help="file or folder (.jsonl, .json, .parquet), or reasoning-gym:TASK"
    )
    cli.add_argument(
        "--tokenizer", required=True, help="model folder with tokenizer.json, or characters"
    )
    cli.add_argument("--out", required=True, type=Path, help="file to write")
    cli.add_argument("--name", help="of the problems [by source]")
    cli.add_argument("--verifier", help="boxed, hash, last_number, math_verify, ... [by source]")
    cli.add_argument("--limit", type=int, help="take only the first N problems")

    rows = cli.add_argument_group("rows of files")
    rows.add_argument(
        "--format", choices=sorted(prepare_sources.FORMATS), help="[recognized by its columns]"
    )
    rows.add_argument("--prompt-column", metavar="NAME")
    rows.add_argument("--answer-column", metavar="NAME")
    rows.add_argument("--solution-column", metavar="NAME", help="worked answers, for SFT")
    rows.add_argument(
        "--skip-broken", action="store_true", help="leave out rows that cannot be used"
    )

    gym = cli.add_argument_group("reasoning-gym")
    gym.add_argument("--count", type=int, help="problems to draw [1000]")
    gym.add_argument("--seed", type=int, help="[0]")
    gym.add_argument("--config", metavar="JSON", help='settings of the task, {"max_terms": 3}')

    wording = cli.add_argument_group("wording of a prompt")
    wording.add_argument(
        "--chat",
        action=argparse.BooleanOptionalAction,
        help="apply the tokenizer's chat template [if it has one]",
    )
    wording.add_argument("--system", metavar="TEXT", default="", help="system message")
    wording.add_argument(
        "--instruction", metavar="TEXT", help="follows each problem [in chats, by verifier]"
    )
    wording.add_argument(
        "--template-options", metavar="JSON", help='for the template, {"enable_thinking": false}'
    )
    wording.add_argument("--stop", metavar="TOKEN", action="append", default=[])
    wording.add_argument("--max-prompt-tokens", type=int, help="leave out longer prompts")

    split = cli.add_argument_group("split")
    split.add_argument(
        "--held-out", type=float, help="fraction, by a hash of the problem's text [0.05]"
    )
    split.add_argument("--held-out-from", metavar="SOURCE", help="all problems of another source")
    return cli


def json_option(text: str | None, flag: str) -> dict:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise PrepareError(f"{flag}: is no JSON ({error}): {shortened(text)}") from None
    if not isinstance(value, dict):
        raise PrepareError(f"{flag}: must be a JSON object, got {shortened(text)}")
    return value


def check_options(options: argparse.Namespace) -> None:
    """What no source would look at is an error."""
    is_gym = options.source.startswith(prepare_sources.REASONING_GYM)
    gym = ("count", "seed", "config")
    of_files = ("format", "prompt_column", "answer_column", "solution_column")
    for name in of_files if is_gym else gym:
        if getattr(options, name) is not None:
            what = "a file's rows" if is_gym else "tasks of reasoning-gym"
            raise PrepareError(
                f"--{name.replace('_', '-')} is for {what}, not for {options.source}"
            )
    for name in ("limit", "count", "max_prompt_tokens"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise PrepareError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if options.held_out is not None and not 0 < options.held_out < 1:
        raise PrepareError(
            f"--held-out must be between 0 and 1, got {options.held_out}; "
            "--held-out-from SOURCE holds out what another file has"
        )
    if options.held_out is not None and options.held_out_from:
        raise PrepareError("--held-out and --held-out-from exclude each other")
    if options.verifier is not None and options.verifier not in ANSWER_FORMS:
        module, colon, function = options.verifier.partition(":")
        if not (colon and module and function):
            known = ", ".join(ANSWER_FORMS)
            raise PrepareError(
                f"--verifier must be {known} or module:function, got {options.verifier}"
            )


def is_held_out(text: str, fraction: float) -> bool:
    """By content: the same problem is in the same split wherever it stands."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


class Progress:
    """One line on a terminal; nothing elsewhere."""

    def __init__(self, what: str):
        self.what, self.shown = what, sys.stderr.isatty()

    def show(self, count: int, end: str = "") -> None:
        if self.shown:
            print(f"\r{self.what} {count}", end=end, file=sys.stderr, flush=True)


def read_source(
    options: argparse.Namespace, source: str
) -> tuple[prepare_sources.Source, list[Record]]:
    columns = prepare_sources.Columns(
        options.prompt_column, options.answer_column, options.solution_column
    )
    gym = {
        "count": options.count or options.limit or 1000,
        "seed": options.seed or 0,
        "config": json_option(options.config, "--config"),
    }
    opened = prepare_sources.open_source(source, columns, options.format, gym, options.skip_broken)
    progress, records = Progress(f"{source}: problems read"), []
    for record in opened.records:
        records.append(record)
        if len(records) % 1000 == 0:
            progress.show(len(records))
        if len(records) == options.limit:
            break
    progress.show(len(records), end="\n")
    if not records:
        left = prepare_sources.counted(opened.skipped)
        raise PrepareError(f"{source}: no problem is left{left}")
    return opened, records


def splits(options: argparse.Namespace, train: list[Record]) -> tuple[list[tuple], int]:
    """(record, split) of all problems, and how many training problems were held out elsewhere."""
    if not options.held_out_from:
        fraction = 0.05 if options.held_out is None else options.held_out
        return [
            (each, HELD_OUT if is_held_out(each.text, fraction) else TRAIN) for each in train
        ], 0
    _, held_out = read_source(options, options.held_out_from)
    texts = {each.text for each in held_out}
    kept = [each for each in train if each.text not in texts]
    return [(r, TRAIN) for r in kept] + [(r, HELD_OUT) for r in held_out], len(train) - len(kept)


def context_of(tokenizer, folder: str) -> int | None:
    """The longest text of the model, in tokens, if the folder says."""
    path = Path(folder) / "config.json"
    if path.is_file():
        longest = json.loads(path.read_text()).get("max_position_embeddings")
        if isinstance(longest, int):
            return longest
    longest = tokenizer.model_max_length
    return longest if longest < 10**9 else None  # transformers' word for unknown is 10^30


def fitting(
    problems: list[PreparedProblem], options: argparse.Namespace, context: int | None
) -> tuple[list[PreparedProblem], int]:
    """Problems whose prompt is short enough, and how many were not."""
    limit = options.max_prompt_tokens
    if limit is not None:
        kept = [each for each in problems if len(each.prompt) <= limit]
        if not kept:
            shortest = min(len(each.prompt) for each in problems)
            raise PrepareError(
                f"--max-prompt-tokens {limit}: all {len(problems)} prompts are longer, the shortest "
                f"has {shortest} tokens; take a larger limit"
            )
        return kept, len(problems) - len(kept)
    too_long = [len(each.prompt) for each in problems if context and len(each.prompt) >= context]
    if too_long:
        raise PrepareError(
            f"{len(too_long)} of {len(problems)} prompts leave no room in the context of {context} "
            f"tokens, the longest has {max(too_long)}; --max-prompt-tokens N leaves out longer ones"
        )
    return problems, 0


def encode_all(
    encoder: prepare_tokens.Encoder, chosen: list[tuple], ending: str
) -> list[PreparedProblem]:
    progress, problems = Progress("problems tokenized"), []
    for start in range(0, len(chosen), prepare_tokens.BATCH):
        batch = chosen[start : start + prepare_tokens.BATCH]
        records = [record for record, _ in batch]
        solutions = [solution_of(record, ending) for record in records]
        for (record, split), (prompt, solution) in zip(
            batch, encoder.encode(records, solutions), strict=True
        ):
            if not prompt:
                raise PrepareError(f"{record.where}: the prompt has no token")
            problems.append(
                PreparedProblem(prompt, solution, record.answer, record.extra, record.text, split)
            )
        progress.show(len(problems))
    progress.show(len(problems), end="\n")
    return problems


def solution_of(record: Record, ending: str) -> str:
    """The worked answer; where a source gives steps alone, it ends as the verifier asks."""
    if not record.steps_only or not record.answer:
        return record.solution
    return "\n".join(part for part in (record.solution, ending.format(record.answer)) if part)


def check_splits(problems: list[PreparedProblem]) -> None:
    for split, name in ((TRAIN, "for training"), (HELD_OUT, "held out")):
        if not any(each.split == split for each in problems):
            raise PrepareError(
                f"of {len(problems)} problems none is {name}; take more problems or another "
                "--held-out FRACTION"
            )


def prepare(options: argparse.Namespace) -> str:
    """Does all of it; returns the summary."""
    check_options(options)
    prepare_file.check_destination(options.out)
    template_options = json_option(options.template_options, "--template-options")
    characters = options.tokenizer == CHARACTERS
    if characters:
        check_folder(folder_beside(options.out))
    else:
        prepare_tokens.require_tokenizer(options.tokenizer)
    source, records = read_source(options, options.source)
    problems = source, *splits(options, records)
    if not characters:
        return prepare_records(options, template_options, options.tokenizer, *problems)
    texts = [text for r, _ in problems[1] for text in (r.text, r.answer, r.solution)]
    with tempfile.TemporaryDirectory() as folder:
        write_character_tokenizer(folder, [*texts, options.instruction or ""])
        text = prepare_records(options, template_options, folder, *problems)
        kept = folder_beside(options.out)
        shutil.copytree(folder, kept, dirs_exist_ok=True)
    return f"{text}\n  tokenizer   {kept}"


def prepare_records(
    options: argparse.Namespace,
    template_options: dict,
    folder: str,
    source: prepare_sources.Source,
    chosen: list[tuple],
    elsewhere: int,
) -> str:
    """Tokenizes by the tokenizer in `folder`, checks, and writes; returns the summary."""
    tokenizer = prepare_tokens.load_tokenizer(folder)
    has_template = bool(tokenizer.chat_template)
    chat = has_template if options.chat is None else options.chat
    if chat and not has_template:
        raise PrepareError(f"--chat: the tokenizer {options.tokenizer} has no chat template")
    if not chat and (options.system or template_options):
        raise PrepareError(
            "--system and --template-options need a chat template; use --instruction"
        )
    verifier = options.verifier or source.verifier
    asks, ending = ANSWER_FORMS.get(verifier, ("", "{}"))
    instruction = options.instruction
    if instruction is None:
        instruction = asks if chat else ""
    wording = prepare_tokens.Wording(chat, options.system, instruction, template_options)
    encoder = prepare_tokens.Encoder(tokenizer, wording, folder, options.stop)
    vocabulary = prepare_tokens.vocabulary_bytes(tokenizer)

    problems = encode_all(encoder, chosen, ending)
    problems, too_long = fitting(problems, options, context_of(tokenizer, folder))
    check_splits(problems)
    some = random.Random(0).sample(problems, min(CHECKED, len(problems)))
    prepare_tokens.check_decoding(
        tokenizer, vocabulary, [ids for each in some for ids in (each.prompt, each.solution) if ids]
    )
    metadata = {
        "name": options.name or source.name,
        "verifier": verifier,
        "stop_tokens": encoder.stop_tokens,
        "pad_token": [] if tokenizer.pad_token_id is None else [tokenizer.pad_token_id],
        "tokenizer": prepare_tokens.fingerprint(
            (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
        ),
        "strip": vocabulary.strip,
        "source": options.source,
        "wording": {"chat": chat, "system": options.system, "instruction": instruction},
    }
    prepare_file.write_problems(options.out, problems, vocabulary.tokens, metadata)
    left_out = {
        "broken": len(source.skipped),
        "also held out": elsewhere,
        "prompt too long": too_long,
    }
    text = summary(options.out, problems, metadata, encoder, left_out, source.skipped)
    first = next(record for record, _ in chosen if record.text == problems[0].text)
    return f"{text}\n  asked as    {shortened(repr(encoder.prompt(first)), 2000)}"


def summary(out, problems, metadata, encoder, left_out, skipped) -> str:
    names = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_tokens)
    wording = metadata["wording"]
    lines = [
        f"{metadata['name']}: {len(problems)} problems in {out}, {out.stat().st_size / 1e6:.1f} MB",
        f"  verifier    {metadata['verifier']}",
        f"  prompt      {'chat template' if wording['chat'] else 'plain text'}"
        + (f', instruction "{wording["instruction"]}"' if wording["instruction"] else ""),
        f"  stop tokens {', '.join(names)}",
        f"  {'':12}{'problems':>9}{'prompt tokens':>20}{'solution tokens':>20}",
    ]
    for split, name in ((TRAIN, "train"), (HELD_OUT, "held out")):
        members = [each for each in problems if each.split == split]
        lengths = [
            f"{sum(each) / len(each):.0f} (max {max(each)})" if each else "none"
            for each in (
                [len(problem.prompt) for problem in members],
                [len(problem.solution) for problem in members if problem.solution],
            )
        ]
        lines.append(f"  {name:12}{len(members):>9}{lengths[0]:>20}{lengths[1]:>20}")
    lines += [f"  left out: {count} ({why})" for why, count in left_out.items() if count]
    lines += [f"    {each}" for each in skipped[:3]]
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    options = parser().parse_args(words)
    try:
        print(prepare(options))
    except PrepareError as error:
        print(f"pion.prepare: {shortened(error, 4000)}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written
        file = error.filename2 or error.filename or options.out
        print(f"pion.prepare: {file}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\npion.prepare: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know every character
    sys.exit(main())
