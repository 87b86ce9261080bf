"""Text from others, made fit for a terminal and a log."""

from __future__ import annotations

import pytest

from penstock.doctor.finding import shown
from penstock.printable import printable


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain, and ünïcödé €", "plain, and ünïcödé €"),
        ("", ""),
        ("a\r\nb\tc\x00", r"a\r\nb\tc\x00"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x85\x9b\xad", r"\x85\x9b\xad"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\u202eexe.\u2066", r"\u202eexe.\u2066"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("a\\nb", "a\\nb"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, escaped: str) -> None:
    """Controls, separators, format characters and surrogates are; all that can be read is not."""
    assert printable(text) == escaped
    assert escaped.isprintable()


def test_the_doctor_escapes_as_everybody_does() -> None:
    """There is one implementation."""
    assert shown("a\x1b\u202e") == r"a\x1b\u202e"
