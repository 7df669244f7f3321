# SPDX-License-Identifier: Apache-2.0
"""Joining the bytes of tokens is what a tokenizer decodes, in Python and in the `pion` command."""

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="pip install transformers")

from cli_command import needs_binary, pion
from prepare_fixture import CORPUS, KINDS, byte_level, prepare, prepared, save, write_lines
from transformers import AutoTokenizer

from pion import prepare_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_joined_bytes_are_what_the_tokenizer_decodes(kind, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(save(KINDS[kind](), tmp_path))
    vocabulary = prepare_tokens.vocabulary_bytes(tokenizer)
    special = tokenizer.eos_token_id
    for text in [*CORPUS, "<think> 1 + 1", "  two blanks", "a", "unseen: ქართული 🙃"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for each in (ids, [special, *ids, special], ids[1:], ids[:1], ids * 2):
            joined = vocabulary.decode(each).decode(errors="replace")
            assert joined == tokenizer.decode(each, skip_special_tokens=True), (text, each)


def test_a_decoder_that_does_more_is_refused(tmp_path):
    from tokenizers import decoders

    tokenizer = byte_level()
    tokenizer.decoder = decoders.WordPiece()
    save(tokenizer, tmp_path / "model")
    write_lines(tmp_path / "t.jsonl", [{"prompt": "a", "answer": 1}])
    result = prepare("t.jsonl", "--tokenizer", "model", "--out", "x", cwd=tmp_path, check=1)
    assert "decoder (WordPiece) does more than join" in result.stderr
    assert not (tmp_path / "x").exists()


def test_the_arithmetic_tokenizer_is_transformers_too():
    folder = Path(__file__).parent / "vectors/arithmetic_tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "37+48-29:37+48=85,85-29=56,\\boxed{56}"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.decode([*ids, 1], skip_special_tokens=True) == text
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer)) == (0, 1, 25)
    vocabulary = prepare_tokens.vocabulary_bytes(tokenizer)
    assert vocabulary.decode([*ids, 1]) == text.encode()
    with pytest.raises(Exception, match="WordLevel"):
        tokenizer("37*48")


@needs_binary
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "unigram"])
def test_pion_inspect_decodes_as_the_tokenizer_does(kind, tmp_path):
    folder = save(KINDS[kind](), tmp_path / "m")
    rows = [{"prompt": f"{i} {CORPUS[i % 5]}", "answer": i, "why": CORPUS[-1]} for i in range(40)]
    write_lines(tmp_path / "t.jsonl", rows)
    problems, metadata = prepared(
        "t.jsonl", folder, "--prompt-column", "prompt", "--solution-column", "why",
        "--held-out", 0.2, cwd=tmp_path,
    )  # fmt: skip
    page = pion("inspect", "out.safetensors", "--samples", 50, cwd=tmp_path, check=0).stdout
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert f"fingerprint {metadata['tokenizer']}" in page
    assert f"train: {sum(p['split'] == 0 for p in problems)} problems" in page
    lines = [line[14:] for line in page.split("\n") if line.startswith(" " * 4)]
    for problem in problems:
        text = tokenizer.decode(problem["prompt"], skip_special_tokens=True)
        wanted = text.split("\n")[:-1]
        assert any(lines[i : i + len(wanted)] == wanted for i in range(len(lines))), text


@needs_binary
def test_pion_inspect_keeps_options_of_models_apart(tmp_path):
    write_lines(tmp_path / "t.jsonl", [{"prompt": f"{i}?", "answer": i} for i in range(40)])
    prepared("t.jsonl", save(byte_level(), tmp_path / "m"), "--held-out", 0.3, cwd=tmp_path)
    result = pion("inspect", "out.safetensors", "--spectra", cwd=tmp_path, check=1)
    assert "are for models" in result.stderr
