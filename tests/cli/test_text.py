"""How facts read: durations, sizes, money, times, and names that cannot steer a terminal."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from cli_samples import NOW
from hypothesis import given
from hypothesis import strategies as st

from cloudrun.cli import text


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (0.314, "0.31 s", "0s"),
        (9.99, "9.99 s", "10s"),
        (9.996, "10 s", "10s"),
        (59.6, "1 min", "1m00s"),
        (179, "2 min 59 s", "2m59s"),
        (3600, "1 h", "1h00m"),
        (11_100, "3 h 05 min", "3h05m"),
        (86_400 * 2 + 4 * 3600, "2 d 04 h", "2d4h"),
        (-3, "0.00 s", "0s"),
    ],
)
def test_durations(seconds: float, long: str, short: str) -> None:
    assert (text.duration(seconds), text.short_duration(seconds)) == (long, short)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (36_100_000, "36.1 MB"),
        (999_960, "1.0 MB"),
        (2 * 10**13, "20.0 TB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert text.size(count) == shown


@given(st.integers(0, 10**18))
def test_sizes_are_short(count: int) -> None:
    assert len(text.size(count)) <= 10


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "unknown"),
        (Decimal(0), "0.00 USD"),
        (Decimal("0.171"), "0.171 USD"),
        (Decimal("0.9"), "0.90 USD"),
        (Decimal("28.04499"), "28.04 USD"),
        (Decimal("0.00002"), "<0.0001 USD"),
        (Decimal("1234.5"), "1,234.50 USD"),
    ],
)
def test_money(amount: Decimal | None, shown: str) -> None:
    assert text.money(amount) == shown


@pytest.mark.parametrize(
    ("span", "ago", "ahead"),
    [
        (timedelta(seconds=0.2), "now", "now"),
        (timedelta(seconds=40), "40 s ago", "in 40 s"),
        (timedelta(minutes=5), "5 min ago", "in 5 min"),
        (timedelta(hours=3), "3 h ago", "in 3 h"),
        (timedelta(days=2), "2 days ago", "in 2 days"),
    ],
)
def test_ages(span: timedelta, ago: str, ahead: str) -> None:
    assert (text.age(NOW - span, NOW), text.until(NOW + span, NOW)) == (ago, ahead)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (7300, "2h"), (86_400 * 261.7, "261d")],
)
def test_short_ages(seconds: float, shown: str) -> None:
    assert text.short_age(seconds) == shown


def test_clock_names_the_day_only_when_it_is_another() -> None:
    local = NOW.astimezone()
    assert text.clock(NOW, NOW) == f"{local:%H:%M}"
    other = NOW + timedelta(days=3)
    assert text.clock(other, NOW) == f"Mar {other.astimezone().day} {other.astimezone():%H:%M}"
    assert text.clock(datetime(2020, 1, 2, 3, 4).astimezone(), NOW) == "2020-01-02 03:04"


@given(st.text())
def test_visible_text_is_one_harmless_line(raw: str) -> None:
    shown = text.visible(raw)
    assert shown.isprintable() or not any(ord(c) < 32 or 0x7F <= ord(c) <= 0x9F for c in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()  # no lone surrogate is left


def test_bytes_that_are_no_utf8_are_named() -> None:
    assert text.visible(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\xe9"
    assert text.visible("a\x1b[31m\n") == "a\\x1b[31m\\n"


@given(st.text(max_size=50), st.integers(1, 30))
def test_cut_and_pad_keep_the_columns(raw: str, columns: int) -> None:
    short = text.cut(raw, columns)
    assert text.width(short) <= columns
    assert text.width(text.pad(short, columns)) == columns


def test_wide_characters_take_two_columns() -> None:
    assert text.width("日本") == 4
    assert text.cut("日本語", 5) == "日本…"
