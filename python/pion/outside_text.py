# SPDX-License-Identifier: Apache-2.0
"""Text from outside: JSON that may nest without end, and what a terminal would obey."""

import json

# beside control characters: what changes the direction of writing, breaks a line, or is no text
_OBEYED = {0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF}


def json_value(text, where: str, error: type = ValueError, **options):
    """json.loads, whose every failure is `error` and begins with `where`; so is deep nesting."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise error(f"{where}: nests too deep to be read") from None
    except ValueError as reason:
        raise error(f"{where}: is no JSON ({reason})") from None


def printable(text: str) -> str:
    r"""The text as a terminal may be shown it: line ends and tabs as they are, control characters,
    marks of direction and halves of characters as \x1b or \u202e. lab/files/printable.cc is its twin."""

    def shown(char: str) -> str:
        code = ord(char)
        if (code < 0x20 and char not in "\n\t") or code == 0x7F:
            return f"\\x{code:02x}"
        if 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in _OBEYED:
            return f"\\u{code:04x}"
        return char

    return text if text.isascii() and text.isprintable() else "".join(map(shown, text))
