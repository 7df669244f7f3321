# SPDX-License-Identifier: Apache-2.0
"""The tokenizer as a child process that speaks JSON lines."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("transformers", reason="pip install transformers")

from prepare_fixture import CHAT, byte_level, save
from tokenizers import processors
from transformers import AutoTokenizer


def answers(folder, *requests):
    result = subprocess.run(
        [sys.executable, "-m", "pion.tokenizer_worker", str(folder)],
        input="".join(
            (each if isinstance(each, str) else json.dumps(each)) + "\n" for each in requests
        ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def test_it_encodes_and_decodes_as_transformers(tmp_path):
    folder = save(byte_level(), tmp_path, CHAT)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Natalia sold 24 clips\n你好 🙂"
    ids = tokenizer(text)["input_ids"]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    code, replies = answers(
        folder,
        {"encode": text},
        {"encode": text, "chat": True},
        {"decode": [*ids, 0]},
        {"encode": ""},
        {"decode": []},
    )
    assert code == 0
    assert replies == [
        {"tokens": ids},
        {"tokens": chat},
        {"text": text},
        {"tokens": []},
        {"text": ""},
    ]


def with_bos(tokenizer):
    """As Llama 3's: every text begins with a token of its own, which a template writes too."""
    bos = "<|endoftext|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def test_a_text_has_one_beginning(tmp_path):
    folder = save(with_bos(byte_level()), tmp_path, "<|endoftext|>" + CHAT)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    user = [{"role": "user", "content": "3+4?"}]
    options = {"add_generation_prompt": True}
    printed = tokenizer.apply_chat_template(user, tokenize=False, **options)
    asked = tokenizer.apply_chat_template(user, tokenize=True, return_dict=False, **options)
    assert tokenizer(printed)["input_ids"] == [bos, *asked]  # what must not be
    code, replies = answers(
        folder,
        {"encode": printed},
        {"encode": "3+4?", "chat": True},
        {"encode": "3+4?"},
        {"encode": ""},
        {"encode": "<|endoftext|>" * 3},
    )
    assert code == 0
    plain = tokenizer("3+4?", add_special_tokens=False)["input_ids"]
    expected = [asked, asked, [bos, *plain], [bos], [bos] * 3]
    assert [reply["tokens"] for reply in replies] == expected


def test_tokens_that_the_tokenizer_does_not_know_are_shown(tmp_path):
    folder = save(byte_level(), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    ids = tokenizer("12+34")["input_ids"]
    code, replies = answers(
        folder,
        {"decode": [size + 5]},
        {"decode": [*ids, size, *ids, size + 1, size + 1]},
    )
    assert code == 0
    assert replies == [{"text": "\ufffd"}, {"text": "12+34\ufffd12+34\ufffd\ufffd"}]


def test_every_bad_request_is_answered_and_the_next_one_works(tmp_path):
    folder = save(byte_level(), tmp_path)
    bad = ["rubbish", "[1]", "{}", {"encode": 3}, {"decode": "x"}, {"decode": [2**31]}]
    bad += [{"decode": [-1]}, {"decode": [True]}, {"encode": "a", "decode": []}, {"other": 1}]
    bad += [{"encode": "a", "chat": True}, {"decode": [1], "chat": True}, "[" * 100000]
    code, replies = answers(folder, *bad, {"decode": []})
    assert code == 0
    assert [list(each) for each in replies] == [["error"]] * len(bad) + [["text"]]


def test_a_folder_without_tokenizer_is_an_answer(tmp_path):
    code, replies = answers(tmp_path, {"encode": "x"})
    assert code == 1
    assert "holds no tokenizer.json" in replies[0]["error"]
