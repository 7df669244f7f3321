# SPDX-License-Identifier: Apache-2.0
"""Turns problems with checkable answers into one file that `pion train` reads.

    python -m pion.prepare train.jsonl --tokenizer MODEL --out problems.safetensors
    python -m pion.prepare reasoning-gym:chain_sum --count 2000 --tokenizer characters --out sums.safetensors

Sources, columns and the file are described in docs/data.md.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from pion import prepare_file, prepare_sources, prepare_tokens
from pion.outside_text import printable
from pion.prepare_characters import (
    CHARACTERS,
    check_folder,
    folder_beside,
    write_character_tokenizer,
)
from pion.prepare_file import HELD_OUT, TRAIN
from pion.prepare_rows import shortened
from pion.prepare_sources import PrepareError
from pion.prepare_stream import Chosen, context_of, json_option, write_encoded

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
        known = ", ".join(ANSWER_FORMS)
        raise PrepareError(
            f"--verifier must be one of {known}, got {options.verifier}; a file cannot name a "
            "function of yours: name it when you train, --reward my_module:score, and prepare with "
            "last_number, which asks for no form"
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
    chosen = Chosen(options)
    if not characters:
        return prepare_chosen(options, template_options, options.tokenizer, chosen)
    alphabet = set(options.instruction or "")
    for record, _ in chosen:
        alphabet.update(record.text, record.answer, record.solution)
    chosen.again()
    with tempfile.TemporaryDirectory() as folder:
        write_character_tokenizer(folder, alphabet)
        text = prepare_chosen(options, template_options, folder, chosen)
        kept = folder_beside(options.out)
        shutil.copytree(folder, kept, dirs_exist_ok=True)
    return f"{text}\n  tokenizer   {kept}"


def wording_of(
    options: argparse.Namespace, template_options: dict, has_template: bool, asks: str
) -> prepare_tokens.Wording:
    """How problems are asked; `asks` is the instruction where the user gave none."""
    chat = has_template if options.chat is None else options.chat
    if chat and not has_template:
        raise PrepareError(f"--chat: the tokenizer {options.tokenizer} has no chat template")
    if not chat and (options.system or template_options):
        raise PrepareError(
            "--system and --template-options need a chat template; use --instruction"
        )
    instruction = options.instruction
    if instruction is None:
        instruction = asks if chat else ""
    return prepare_tokens.Wording(chat, options.system, instruction, template_options)


def prepare_chosen(
    options: argparse.Namespace, template_options: dict, folder: str, chosen: Chosen
) -> str:
    """Tokenizes by the tokenizer in `folder`, checks, and writes; returns the summary."""
    tokenizer, source = prepare_tokens.load_tokenizer(folder), chosen.source
    verifier = options.verifier or source.verifier
    asks, ending = ANSWER_FORMS.get(verifier, ("", "{}"))
    asks = "" if source.instructed else asks
    wording = wording_of(options, template_options, bool(tokenizer.chat_template), asks)
    encoder = prepare_tokens.Encoder(tokenizer, wording, folder, options.stop)
    vocabulary = prepare_tokens.vocabulary_bytes(tokenizer)
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
        "wording": {
            "chat": wording.chat,
            "system": options.system,
            "instruction": wording.instruction,
        },
    }
    context = context_of(tokenizer, folder)
    with prepare_file.ProblemWriter(options.out) as writer:
        tally = write_encoded(writer, encoder, chosen, ending, options.max_prompt_tokens, context)
        tokens = [ids for each in tally.some for ids in (each.prompt, each.solution) if ids]
        prepare_tokens.check_decoding(tokenizer, vocabulary, tokens)
        writer.finish(vocabulary.tokens, metadata)
    left_out = {
        "broken": source.skipped.count,
        "also held out": chosen.elsewhere,
        "prompt too long": tally.left_out.count,
    }
    text = summary(options.out, tally, metadata, encoder, left_out, source.skipped.first)
    return f"{text}\n  asked as    {shortened(repr(encoder.prompts([tally.first])[0]), 2000)}"


def summary(out, tally, metadata, encoder, left_out, skipped) -> str:
    names = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_tokens)
    wording = metadata["wording"]
    lines = [
        f"{metadata['name']}: {tally.count} problems in {out}, {out.stat().st_size / 1e6:.1f} MB",
        f"  verifier    {metadata['verifier']}",
        f"  prompt      {'chat template' if wording['chat'] else 'plain text'}"
        + (f', instruction "{wording["instruction"]}"' if wording["instruction"] else ""),
        f"  stop tokens {', '.join(names)}",
        f"  {'':12}{'problems':>9}{'prompt tokens':>20}{'solution tokens':>20}",
    ]
    for split, name in ((TRAIN, "train"), (HELD_OUT, "held out")):
        prompts, solutions = tally.prompts[split], tally.solutions[split]
        lines.append(f"  {name:12}{prompts.count:>9}{prompts!s:>20}{solutions!s:>20}")
    lines += [f"  left out: {count} ({why})" for why, count in left_out.items() if count]
    lines += [f"    {each}" for each in skipped]
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    options = parser().parse_args(words)
    try:
        print(printable(prepare(options)))
    except PrepareError as error:
        print(printable(f"pion.prepare: {shortened(error, 4000)}"), file=sys.stderr)
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
