# SPDX-License-Identifier: Apache-2.0
"""A tokenizer for other programs: JSON lines on standard input and output.

    python -m pion.tokenizer_worker MODEL
    {"encode": "text"}                -> {"tokens": [1, 2]}
    {"encode": "text", "chat": true}  -> {"tokens": [...]}   as a user's message, by the template
    {"decode": [1, 2]}                -> {"text": "..."}     without special tokens
    anything else                     -> {"error": "..."}

A text that begins with what the tokenizer puts before every text, as a beginning-of-text token
that a chat template has written, gets it once. Models may have more tokens than the tokenizer
knows: those become U+FFFD.

One line is answered by one line. It ends with its input; a tokenizer that cannot be loaded is
answered by {"error": "..."} and exit status 1. Of pion it imports nothing, so the file runs alone.
"""

import json
import os
import sys
from pathlib import Path


def load(folder: str):
    from transformers import AutoTokenizer, logging

    logging.set_verbosity_error()
    if not (Path(folder) / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: holds no tokenizer.json")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def encoded_once(tokenizer, text: str) -> list[int]:
    """The tokens of a text, without a second copy of what the tokenizer puts before it."""
    ids = tokenizer(text)["input_ids"]
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    for added in range(len(ids) - len(plain), 0, -1):
        if ids[added : added + len(plain)] == plain:
            return ids[added:] if plain[:added] == ids[:added] else ids
    return ids


def encoded(tokenizer, text: str, chat: bool) -> list[int]:
    if not chat:
        return encoded_once(tokenizer, text)
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def decoded(tokenizer, ids: list[int]) -> str:
    parts, known = [], []
    for token in [*ids, None]:  # None: the end
        if token is not None and token < len(tokenizer) and tokenizer.convert_ids_to_tokens(token):
            known.append(token)
            continue
        parts.append(
            tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
        known = []
    return "\ufffd".join(parts)


def answer(tokenizer, line: str) -> dict:
    request = json.loads(line)
    if not isinstance(request, dict):
        raise ValueError(f"a request must be an object, got {line[:80]}")  # noqa: TRY004 - is answered
    unknown = set(request) - {"encode", "decode", "chat"}
    if unknown or ("encode" in request) == ("decode" in request):
        raise ValueError('a request must hold "encode" (and "chat") or "decode"')
    if "encode" in request:
        text, chat = request["encode"], request.get("chat", False)
        if not isinstance(text, str) or not isinstance(chat, bool):
            raise ValueError('"encode" must be text, "chat" true or false')
        return {"tokens": encoded(tokenizer, text, chat)}
    tokens = request["decode"]
    if "chat" in request:
        raise ValueError('"chat" belongs to "encode"')
    if not isinstance(tokens, list) or not all(
        type(token) is int and 0 <= token < 2**31 for token in tokens
    ):
        raise ValueError('"decode" must be a list of tokens in [0, 2^31)')
    return {"text": decoded(tokenizer, tokens)}


def main() -> int:
    # what the libraries print must not stand between the answers
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(message: dict) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    if len(sys.argv) != 2:
        reply({"error": "usage: python -m pion.tokenizer_worker MODEL"})
        return 1
    try:
        tokenizer = load(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - the libraries raise whatever they like on damaged files
        reply({"error": str(error) or repr(error)})
        return 1
    for line in sys.stdin:
        try:
            reply(answer(tokenizer, line))
        except BrokenPipeError:
            return 0
        except Exception as error:  # noqa: BLE001 - tokenizers raise plain Exception
            reply({"error": str(error) or repr(error)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
