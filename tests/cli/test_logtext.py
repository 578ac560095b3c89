"""A log's control sequences never reach the terminal, wherever the chunks are cut."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun.cli.logtext import HELD_MOST, LogText

HARMFUL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
PIECES = st.sampled_from(
    [
        b"\x1b",
        b"[",
        b"]",
        b"31m",
        b"0;title",
        b"\x07",
        b"\\",
        b"\x9b",
        b"\xc2\x9b",
        b"\xc2\x9d",
        b"\n",
        b"text ",
        b"P",
        b"\x18",
    ]
)
LOGS = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(b"".join))


def shown(data: bytes, *cuts: int) -> str:
    text = LogText()
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = [text.feed(data[a:b]) for a, b in itertools.pairwise(borders)]
    return "".join(parts) + text.close()


@given(LOGS)
def test_no_control_character_survives(data: bytes) -> None:
    assert not HARMFUL.search(shown(data))


@given(LOGS, st.lists(st.integers(0, 400), max_size=8))
def test_chunk_borders_change_nothing(data: bytes, cuts: list[int]) -> None:
    assert shown(data, *cuts) == shown(data)


@given(st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=200))
def test_plain_text_stays(text: str) -> None:
    assert shown(text.encode()) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;evil title\x07after", "after"),
        (b"\x1b]52;c;ZXZpbA==\x1b\\after", "after"),  # writes the clipboard
        (b"\x1bPq#0;2;0;0;0\x1b\\after", "after"),
        (b"\x1b[2J\x1b[Hhome", "home"),
        (b"\x1b]never ended\nnext line", "\nnext line"),
        (b"\xc2\x9b31mred", "red"),  # CSI as one C1 character
        (b"10 %\r20 %\r\n", "10 %\r20 %\r\n"),
        (b"a\tb\n", "a\tb\n"),
        (b"bell\x07 back\x08 nul\x00", "bell back nul"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("日本".encode(), "日本"),
        (b"\x1b(0lqk", "lqk"),  # another character set
    ],
)
def test_known_sequences(data: bytes, text: str) -> None:
    assert shown(data) == text


def test_a_sequence_that_never_ends_does_not_hold_the_log_back() -> None:
    text = LogText()
    seen = text.feed(b"\x1b]" + b"x" * (HELD_MOST + 10)) + text.feed(b"\nafter")
    assert seen.endswith("\nafter")


def test_what_is_complete_is_shown_at_once() -> None:
    text = LogText()
    assert text.feed(b"epoch 1") == "epoch 1"
    assert text.feed(b"\x1b[3") == ""
    assert text.feed(b"1m2") == "2"
