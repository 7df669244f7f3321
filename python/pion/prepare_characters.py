# SPDX-License-Identifier: Apache-2.0
"""A tokenizer whose tokens are characters, for small models trained from nothing."""

from collections.abc import Iterable
from pathlib import Path

from pion.outside_text import json_value
from pion.prepare_sources import PrepareError

CHARACTERS = "characters"  # the value of --tokenizer that asks for it
PAD, END = "<pad>", "<eos>"
# printable ASCII: two sets of problems that hold nothing else share one tokenizer
USUAL = "\n" + "".join(map(chr, range(32, 127)))


def folder_beside(out: Path) -> Path:
    """Where the tokenizer of the problem file `out` is kept: sums-tokenizer for sums.safetensors."""
    return out.with_name(out.stem + "-tokenizer")


def check_folder(folder: Path) -> None:
    """Raises PrepareError if `folder` cannot be replaced: it holds another kind of tokenizer."""
    path = folder / "tokenizer.json"
    for link in (folder, *(folder.iterdir() if folder.is_dir() else ())):
        if link.is_symlink():  # a copy would be written where it leads
            raise PrepareError(
                f"--tokenizer {CHARACTERS}: would be kept in {folder}, but {link} is a link; remove "
                "it, or take another --out"
            )
    if folder.is_dir() and not path.exists() or not folder.exists():
        return
    try:
        vocabulary = json_value(path.read_bytes(), str(path))["model"]["vocab"]
        ours = (vocabulary[PAD], vocabulary[END], vocabulary["\n"]) == (0, 1, 2)
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise PrepareError(
            f"--tokenizer {CHARACTERS}: would be kept in {folder}, which is something else; take "
            "another --out"
        )


def write_character_tokenizer(folder: Path, texts: Iterable[str]) -> None:
    """Writes what transformers loads: one token for each character of ASCII and of `texts`."""
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise PrepareError(f"needs `pip install transformers tokenizers`: {error}") from None
    more = sorted(set().union(*map(set, texts)) - set(USUAL))
    vocabulary = {token: index for index, token in enumerate([PAD, END, *USUAL, *more])}
    # the unknown token is not in the vocabulary: other characters are an error, not dropped
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
