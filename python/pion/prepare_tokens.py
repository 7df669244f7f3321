# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: loading one, the bytes of its vocabulary, prompts and solutions in tokens."""

import dataclasses
import json
from pathlib import Path

from pion import tokenizer_worker
from pion.outside_text import json_value
from pion.prepare_sources import PrepareError, Record, shortened

BATCH = 2000  # texts a call of the tokenizer: 20 ms of work for each of its threads
MARK = "\ue000pion\ue000"  # stands for an assistant's words; of the private use area


def require_tokenizer(folder: str) -> None:
    """Raises PrepareError if the folder holds no tokenizer."""
    path = Path(folder)
    if not path.is_dir():
        raise PrepareError(
            f"--tokenizer {folder}: no such folder; it must hold tokenizer.json, or the option be "
            "`characters`"
        )
    if not (path / "tokenizer.json").is_file():
        there = ", ".join(sorted(each.name for each in path.iterdir())[:12]) or "nothing"
        raise PrepareError(f"--tokenizer {folder}: holds no tokenizer.json; there are: {there}")


def load_tokenizer(folder: str):
    """The tokenizer of a folder, by transformers, without running code that it may hold."""
    try:
        return tokenizer_worker.load(folder)
    except ImportError as error:
        raise PrepareError(f"needs `pip install transformers tokenizers`: {error}") from None
    except Exception as error:  # noqa: BLE001 - the libraries raise whatever they like
        raise PrepareError(
            f"--tokenizer {folder}: cannot be loaded: {shortened(error, 300)}"
        ) from None


def fingerprint(tokenizer_json: str) -> str:
    """FNV-1a over "id token\\n" in the order of ids; lab/data/tokenizer_fingerprint.cc is its twin."""
    value = json_value(tokenizer_json, "tokenizer.json", PrepareError)
    vocabulary = value["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: [token, score]
        tokens = {index: entry[0] for index, entry in enumerate(vocabulary)}
    else:
        tokens = {index: token for token, index in vocabulary.items()}
    tokens |= {added["id"]: added["content"] for added in value.get("added_tokens") or []}
    text = "".join(f"{index} {token}\n" for index, token in sorted(tokens.items()))
    result = 0xCBF29CE484222325
    for byte in text.encode():
        result = (result ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{result:016x}"


# ---- bytes of tokens


def byte_level_alphabet() -> dict[str, int]:
    """character -> byte of byte-level BPE: printable bytes are themselves, the others follow 255.

    GPT-2's table: A. Radford et al., "Language models are unsupervised multitask learners", 2019.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


def decoder_steps(decoder: dict | None) -> list[dict]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [step for each in decoder["decoders"] for step in decoder_steps(each)]
    return [decoder]


@dataclasses.dataclass
class VocabularyBytes:
    tokens: list[bytes]  # by id; special tokens and gaps are b""
    strip: str  # of the beginning of a decoded text: "none", "space", "first_token"

    def decode(self, ids: list[int]) -> bytes:
        parts = [self.tokens[each] for each in ids]
        if self.strip == "first_token":
            first = next((i for i, part in enumerate(parts) if part), None)
            if first is not None:
                parts[first] = parts[first].replace(b" ", b"")
        joined = b"".join(parts)
        return joined[1:] if self.strip == "space" and joined[:1] == b" " else joined


def token_bytes(token: str, steps: list[dict], alphabet: dict[str, int]) -> bytes:
    kinds = [step["type"] for step in steps]
    if "ByteLevel" in kinds:
        if all(char in alphabet for char in token):
            return bytes(alphabet[char] for char in token)
        return token.encode()  # an added token, as it stands
    for step in steps:
        if step["type"] == "Metaspace":
            token = token.replace(step["replacement"], " ")
        elif step["type"] == "Replace":
            token = token.replace(step["pattern"]["String"], step["content"])
    if "ByteFallback" in kinds and len(token) == 6 and token[:3] == "<0x" and token[5] == ">":
        return bytes([int(token[3:5], 16)])
    return token.encode() if steps else b" " + token.encode()  # without decoder: words


def vocabulary_bytes(tokenizer) -> VocabularyBytes:
    """Bytes whose concatenation is what the tokenizer decodes. Refuses decoders that do more."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    steps = decoder_steps(description.get("decoder"))
    strip = "none" if steps else "space"
    for step in steps:
        kind = step["type"]
        if kind == "Strip" and (step["content"], step["start"], step["stop"]) == (" ", 1, 0):
            strip = "space"
        elif kind == "Metaspace":
            strip = "none" if step.get("prepend_scheme") == "never" else "first_token"
        elif kind == "Replace" and "String" not in step["pattern"]:
            raise PrepareError("--tokenizer: its decoder replaces by a regular expression")
        elif kind not in ("ByteLevel", "ByteFallback", "Fuse", "Replace"):
            raise PrepareError(
                f"--tokenizer: its decoder ({kind}) does more than join tokens; those of byte-level "
                "BPE, of sentencepiece and of plain words or characters are known"
            )
    alphabet = byte_level_alphabet()
    special = {index for index, added in tokenizer.added_tokens_decoder.items() if added.special}
    ids = tokenizer.get_vocab()
    tokens = [b""] * (max(ids.values()) + 1)
    for token, index in ids.items():
        if index not in special:
            tokens[index] = token_bytes(token, steps, alphabet)
    return VocabularyBytes(tokens, strip)


def check_decoding(tokenizer, vocabulary: VocabularyBytes, sequences: list[list[int]]) -> None:
    """Raises PrepareError if joining bytes is not what the tokenizer itself decodes."""
    for ids in sequences:
        ours = vocabulary.decode(ids).decode(errors="replace")
        theirs = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if ours != theirs:
            raise PrepareError(
                "--tokenizer: decoding by joining the tokens' bytes is not what the tokenizer does: "
                f"{shortened(repr(ours))} instead of {shortened(repr(theirs))}"
            )


# ---- prompts and solutions


@dataclasses.dataclass
class Wording:
    """How a problem becomes a prompt."""

    chat: bool
    system: str = ""
    instruction: str = ""
    template_options: dict = dataclasses.field(default_factory=dict)


class Encoder:
    def __init__(self, tokenizer, wording: Wording, folder: str, stop: list[str]):
        self.tokenizer = tokenizer
        self.wording = wording
        # whole texts, as the tokenizer's own call would set it; that call takes twice the time
        self.backend = tokenizer.backend_tokenizer
        self.backend.no_truncation()
        self.backend.no_padding()
        self.backend.encode_special_tokens = tokenizer.split_special_tokens
        self.end_of_answer, self.stop_tokens = self._stops(Path(folder), stop)

    def _stops(self, folder: Path, named: list[str]) -> tuple[int, list[int]]:
        """The token that ends a solution, and all that end an answer."""
        stops = []
        for text in named:
            index = self.tokenizer.get_vocab().get(text)
            if index is None:
                raise PrepareError(f'--stop: the tokenizer has no token "{text}"')
            stops.append(index)
        if self.wording.chat:
            stops += self._end_of_turn()
        if self.tokenizer.eos_token_id is not None:
            stops.append(self.tokenizer.eos_token_id)
        for name in ("generation_config.json", "config.json"):
            if (folder / name).is_file():
                value = json_value((folder / name).read_bytes(), str(folder / name), PrepareError)
                value = value.get("eos_token_id") if isinstance(value, dict) else None
                stops += value if isinstance(value, list) else [] if value is None else [value]
        known = len(self.tokenizer)
        stops = [
            each for each in dict.fromkeys(stops) if isinstance(each, int) and 0 <= each < known
        ]
        if not stops:
            raise PrepareError(
                "--tokenizer: it names no token that ends a text; name one: --stop TOKEN"
            )
        return stops[0], stops

    def _end_of_turn(self) -> list[int]:
        """The special token that the chat template writes after an assistant's words."""
        messages = [{"role": "user", "content": MARK}, {"role": "assistant", "content": MARK}]
        after = self._rendered([messages], answer_follows=False)[0].rpartition(MARK)[2]
        special = set(self.tokenizer.all_special_ids) | {
            index for index, added in self.tokenizer.added_tokens_decoder.items() if added.special
        }
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        return [index for index in ids if index in special][:1]

    def _rendered(self, conversations: list[list[dict]], answer_follows: bool) -> list[str]:
        try:
            return self.tokenizer.apply_chat_template(
                conversations,
                tokenize=False,
                add_generation_prompt=answer_follows,
                **self.wording.template_options,
            )
        except Exception as error:  # noqa: BLE001 - a template raises whatever its author wrote
            raise PrepareError(
                f"the chat template refuses the conversation: {shortened(error, 200)}; "
                "try without --system, or --no-chat"
            ) from None

    def _asked(self, record: Record) -> str:
        instruction = self.wording.instruction
        return record.text + ("\n" + instruction if instruction else "")

    def _conversation(self, record: Record) -> list[dict]:
        messages = [*(record.messages or [None])]
        messages[-1] = {"role": "user", "content": self._asked(record)}
        if self.wording.system:
            if messages[0]["role"] == "system":
                raise PrepareError(f"{record.where}: has a system message already; drop --system")
            messages.insert(0, {"role": "system", "content": self.wording.system})
        return messages

    def prompts(self, records: list[Record]) -> list[str]:
        """The texts that are encoded."""
        if self.wording.chat:
            return self._rendered([self._conversation(each) for each in records], True)
        for record in records:
            if record.messages:
                raise PrepareError(f"{record.where}: messages need a chat template; drop --no-chat")
        return [self._asked(record) + "\n" for record in records]

    def encode(self, records: list[Record], solutions: list[str]) -> list[tuple[list, list]]:
        """(prompt, solution) in tokens; a solution ends with its stop token, or is empty."""
        prompts = self.prompts(records)
        # a chat template writes the beginning of a text itself
        special = not self.wording.chat
        solved = [index for index, solution in enumerate(solutions) if solution]
        ids = self._ids([*prompts, *(prompts[i] + solutions[i] for i in solved)], special)
        heads, joined = ids[: len(prompts)], ids[len(prompts) :]
        encoded = [(head, []) for head in heads]
        apart = []  # the tokenizer joins the end of the prompt and the beginning of the solution
        for index, both in zip(solved, joined, strict=True):
            head = heads[index]
            if both[: len(head)] != head:
                apart.append(index)
            elif len(both) > len(head):
                # tokens of the whole text, if the border falls between two of them
                encoded[index] = (head, [*both[len(head) :], self.end_of_answer])
        for index, tail in zip(apart, self._ids([solutions[i] for i in apart], False), strict=True):
            if tail:
                encoded[index] = (heads[index], [*tail, self.end_of_answer])
        return encoded

    def _ids(self, texts: list[str], special: bool) -> list[list[int]]:
        """Tokens; with what a text of its own begins with if `special`."""
        try:
            ids = [
                each.ids
                for each in self.backend.encode_batch_fast(texts, add_special_tokens=special)
            ]
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception
            raise PrepareError(
                f"--tokenizer: it cannot encode a text ({error}); one of characters must know all "
                "of them: make one for these problems with --tokenizer characters"
            ) from None
        end = self.tokenizer.eos_token_id
        # some tokenizers end every text by themselves; a prompt goes on
        return [each[:-1] if each and each[-1] == end else each for each in ids]
