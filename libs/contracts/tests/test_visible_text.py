"""What others wrote steers no terminal and forges no line."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frond.contracts.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("a.tif\n- b.tif: fine\r", "a.tif\\x0a- b.tif: fine\\x0d"),
        ("\x7f\x9b2J\x85", "\\x7f\\x9b2J\\x85"),
        ("fit.\u202eexe\u2066\u200f\u061c", "fit.\\u202eexe\\u2066\\u200f\\u061c"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_steers_is_shown(text: str, shown: str) -> None:
    """C0, DEL, C1, separators of lines, bidirectional controls, halves of pairs."""
    assert visible(text) == shown


@given(st.text())
def test_one_line_that_any_terminal_takes(text: str) -> None:
    """Whatever it was: one line, no control character, and it can be sent."""
    told = visible(text)
    told.encode()
    assert len(told.splitlines()) <= 1
    assert not any(unicodedata.category(c) == "Cc" for c in told)
    assert not any(
        unicodedata.bidirectional(c)
        in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        for c in told
    )


@pytest.mark.parametrize(
    "text", ["größe.tif", "شهر.tif", "東京 🌴.tif", "a\u00a0b\u200d", "C:\\x1b"]
)
def test_names_of_every_script_stay(text: str) -> None:
    assert visible(text) == text
