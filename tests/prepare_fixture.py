# SPDX-License-Identifier: Apache-2.0
"""Tokenizers trained on the spot, and a reader of prepared files, for prepare_test.py."""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import pion.prepare
import safetensors
import safetensors.numpy
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Question: what is 12+34? The answer is \\boxed{46}.\n#### 46",
    "héllo wörld — 你好 🙂 naïve\ttabs  and   blanks\n\n",
    "def f(x):\n    return x ** 2  # 1,234.5%",
    " leading and trailing ",
    "Weng earns $12 an hour. Natalia sold 48/2 = 24 clips.",
]
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ lead | default('') }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level() -> Tokenizer:
    """As Qwen's and Llama 3's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    tokenizer.add_tokens(["<think>"])  # not special: it is text
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2's: sentencepiece BPE whose unknown characters become bytes."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", *SPECIAL, *pieces])
    tokenizer.train_from_iterator([text for text in CORPUS if text.isascii()] * 20, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in pieces]
    state["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    return Tokenizer.from_str(json.dumps(state))


def unigram() -> Tokenizer:
    """As newer sentencepiece models: the decoder is Metaspace."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", *SPECIAL], unk_token="<unk>"
    )
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    return tokenizer


def words() -> Tokenizer:
    """Whole words and no decoder: they are joined by blanks."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", *SPECIAL])
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def characters() -> Tokenizer:
    alphabet = sorted(set("".join(CORPUS)))
    vocabulary = {token: index for index, token in enumerate(["<unk>", *SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>", *SPECIAL])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


KINDS = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "unigram": unigram,
    "words": words,
    "characters": characters,
}


def save(tokenizer: Tokenizer, folder: Path, chat_template: str | None = None, **options) -> Path:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[0], **options
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return folder


@dataclasses.dataclass
class Outcome:
    returncode: int
    stdout: str
    stderr: str


def prepare(*words, cwd, check=0) -> Outcome:
    """The command in this process: another one would spend 2 s on importing transformers."""
    out, error = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        code = pion.prepare.main([str(word) for word in words])
    outcome = Outcome(code, out.getvalue(), error.getvalue())
    assert code == check, outcome
    return outcome


def prepare_process(*words, cwd, code="", **options):
    start = ["-c", code] if code else ["-m", "pion.prepare"]
    return subprocess.run(
        [sys.executable, *start, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        **options,
    )


def read(path: Path) -> tuple[list[dict], dict]:
    """The problems of a file and its metadata, by the safetensors library alone."""
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()

    def rows(name):
        flat, offsets = tensors[name], tensors[f"{name}_offsets"]
        return [flat[offsets[i] : offsets[i + 1]].tolist() for i in range(len(offsets) - 1)]

    texts = {
        name: [bytes(row).decode() for row in rows(name)] for name in ("answer", "extra", "text")
    }
    problems = [
        {
            "prompt": prompt,
            "solution": solution,
            "split": split,
            **{name: values[i] for name, values in texts.items()},
        }
        for i, (prompt, solution, split) in enumerate(
            zip(rows("prompt"), rows("solution"), tensors["split"].tolist(), strict=True)
        )
    ]
    return problems, metadata


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def prepared(source, model, *words, cwd):
    prepare(source, "--tokenizer", model, "--out", cwd / "out.safetensors", *words, cwd=cwd)
    return read(cwd / "out.safetensors")


# line among those of train.jsonl, what is said of it
BAD_LINES = {
    "no json": (
        '{"question": "a", "answer": ',
        "train.jsonl:4: is no JSON (Expecting value, character 30)",
    ),
    "a list": ("[1, 2]", "train.jsonl:4: must be a JSON object, got [1, 2]"),
    "no utf-8": (b'{"question": "\xff"}', "train.jsonl:4: is no UTF-8 (byte 15)"),
    "deep": ("[" * 100000, "train.jsonl:4: is no JSON"),
    "no column": (
        '{"question": "a", "other": 1}',
        'no column "answer"; there are: other, question',
    ),
    "no mark": ('{"question": "a", "answer": "72"}', 'train.jsonl:4: the answer must end in "####'),
    "null": ('{"question": null, "answer": "#### 7"}', 'column "question" must be text'),
    "nan": (
        '{"question": NaN, "answer": "#### 7"}',
        'train.jsonl:4: column "question" must be a number that float64 can hold, got nan',
    ),
    "huge": ('{"question": 1e400, "answer": "#### 7"}', "float64 can hold, got 1e400"),
    "tiny": ('{"question": 1e-9999999999999999999, "answer": "#### 7"}', "float64 can hold"),
    "surrogate": (
        r'{"question": "bad \ud800 x", "answer": "#### 7"}',
        r"train.jsonl:4: holds half of a character, '\ud800': 'bad \ud800 x'",
    ),
    "surrogate kept": (
        r'{"question": "a", "answer": "\udc00 #### 7"}',
        r"train.jsonl:4: holds half of a character, '\udc00'",
    ),
    "empty": (
        '{"question": " ", "answer": "#### 7"}',
        "train.jsonl:4: the problem's text is empty",
    ),
}

# arguments, what is said of them
BAD_WORDS = [
    (["none.jsonl"], "none.jsonl: no such file or folder"),
    (["train.jsonl", "--prompt-column", "ask"], 'no column "ask"; there are: answer, question'),
    (["other.jsonl"], "there are: a, b. Name the columns with --prompt-column"),
    (["blank.jsonl"], "blank.jsonl: holds no problem"),
    (["latin.jsonl", "--skip-broken"], "1 broken, the first: latin.jsonl:1: is no UTF-8 (byte 13)"),
    (["other.jsonl", "--skip-broken"], "there are: a, b. Name the columns with --prompt-column"),
    (["text.txt"], "text.txt: must end in .jsonl, .ndjson, .json, .parquet"),
    (["bad.parquet"], "bad.parquet: is no Parquet file"),
    (
        ["nested.jsonl", "--answer-column", "r.gold"],
        'no column "r.gold"; there are: prompt, r. Name',
    ),
    (["nested.jsonl", "--answer-column", "r.t"], 'column "r.t": the list of answers is empty'),
    (["nested.jsonl", "--answer-column", "r.u"], 'column "r.u" must be text or a number, got {}'),
    (["train.jsonl", "--count", "5"], "--count is for tasks of reasoning-gym"),
    (["train.jsonl", "--format", "math"], 'no column "solution"; there are: answer, question'),
    (["train.jsonl", "--format", "gsm8k", "--answer-column", "a"], "has its own columns"),
    (["train.jsonl", "--held-out", "0"], "--held-out must be between 0 and 1, got 0.0"),
    (["train.jsonl", "--held-out", "0.001"], "of 80 problems none is held out"),
    (["train.jsonl", "--held-out", "0.2", "--held-out-from", "x"], "exclude each other"),
    (["train.jsonl", "--held-out-from", "train.jsonl"], "none is for training"),
    (["train.jsonl", "--limit", "0"], "--limit must be at least 1, got 0"),
    (["train.jsonl", "--max-prompt-tokens", "3"], "all 80 prompts are longer, the shortest has "),
    (["train.jsonl", "--verifier", "nope"], "reasoning_gym, got nope"),
    (["train.jsonl", "--verifier", "mine:score"], "a file cannot name a function"),
    (["train.jsonl", "--chat"], "has no chat template"),
    (["train.jsonl", "--system", "x"], "need a chat template"),
    (["train.jsonl", "--stop", "<|nope|>"], 'no token "<|nope|>"'),
    (["reasoning-gym:chain_sun"], "did you mean chain_sum"),
    (["reasoning-gym:chain_sum", "--config", "{"], "--config: is no JSON"),
    (["reasoning-gym:chain_sum", "--config", '{"terms": 1}'], 'no setting "terms"; there are: '),
    (["reasoning-gym:chain_sum", "--config", '{"max_terms": 0}'], "chain_sum refuses"),
    (["reasoning-gym:chain_sum", "--answer-column", "a"], "is for a file's rows"),
    (["reasoning-gym:composite"], "composite mixes other tasks"),
    (["reasoning-gym:arc_agi", "--config", '{"rotations_weights": 7}'], "arc_agi refuses"),
]
