"""Text of others where a person reads it: a terminal, an e-mail."""

from __future__ import annotations

from typing import Final

# C0, DEL, C1; line and paragraph separators; what turns the direction of writing; halves of
# surrogate pairs, which no terminal can be sent
_HIDDEN: Final = (
    range(0x20), range(0x7F, 0xA0), (0x061C, 0x200E, 0x200F), range(0x2028, 0x202F),
    range(0x2066, 0x206A), range(0xD800, 0xE000),
)  # fmt: skip
_SHOWN: Final = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for codes in _HIDDEN
    for code in codes
}


def visible(text: str) -> str:
    """The text on one line, with every character that steers instead of showing as \\xNN or \\uNNNN.

    A file's name may hold ESC, a newline or a bidirectional override: as they stand they would colour
    a terminal, forge a line, or turn what is read.
    """
    return text.translate(_SHOWN)
