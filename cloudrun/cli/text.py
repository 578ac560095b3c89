"""How facts read on a screen: sizes, durations, times, money, and names made harmless. Pure functions.

Durations are in seconds, sizes in bytes, money in US dollars; times are aware and shown as local time.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

UNKNOWN = "unknown"
# C0 and C1 controls, DEL, line and paragraph separators, bidirectional overrides, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_WIDE = re.compile(
    "[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6"
    "\U0001f300-\U0001faff\U00020000-\U0003fffd]"
)


def visible(text: str) -> str:
    """Text on one line with everything that could steer a terminal escaped; undecodable bytes as \\xNN."""
    return _UNSAFE.sub(_escaped, text)


def visible_lines(text: str) -> str:
    """As `visible`, but newlines and tabs stay."""
    return "\n".join("\t".join(visible(part) for part in line.split("\t")) for line in text.split("\n"))


def size(count: int) -> str:
    """12 B, 3.4 kB, 56.7 MB: powers of 1000, as disks and clouds count."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.5 or unit == "TB":
            break
    return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"


def duration(seconds: float) -> str:
    """0.31 s, 42 s, 2 min 59 s, 3 h 05 min, 2 d 04 h; 3 h where nothing is left over."""
    if seconds < 9.995:
        return f"{max(seconds, 0):.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    if whole < 86400:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    return _two(whole // 86400, "d", whole % 86400 // 3600, "h")


def short_duration(seconds: float) -> str:
    """The same in at most five or six characters for tables: 42s, 2m59s, 3h05m, 2d4h."""
    whole = round(max(seconds, 0))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def short_age(seconds: float) -> str:
    """One number for tables: 42s, 5m, 3h, 12d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(max(seconds, 0))}s"


def age(moment: datetime, now: datetime) -> str:
    """How long ago, coarsely: now, 40 s ago, 5 min ago, 3 h ago, 2 days ago."""
    return _coarse(now - moment, "now", "{} ago")


def until(moment: datetime, now: datetime) -> str:
    """How long from now, coarsely: now, in 40 s, in 3 h."""
    return _coarse(moment - now, "now", "in {}")


def clock(moment: datetime, now: datetime) -> str:
    """Local time: 21:15 when it is today, else Nov 22 21:15, with the year when it is another."""
    local, today = moment.astimezone(), now.astimezone()
    if local.date() == today.date():
        return f"{local:%H:%M}"
    if local.year == today.year:
        return f"{local:%b} {local.day} {local:%H:%M}"
    return f"{local:%Y-%m-%d %H:%M}"


def money(amount: Decimal | None) -> str:
    """US dollars: cents from a dollar on, more digits below it; None is unknown, never 0."""
    if amount is None:
        return UNKNOWN
    return f"{plain_money(amount)} USD"


def plain_money(amount: Decimal) -> str:
    """0.00, 0.0042, 0.171, 28.04."""
    if amount == 0 or abs(amount) >= 1:
        return f"{amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"
    rounded = amount.quantize(Decimal("0.0001"), ROUND_HALF_UP).normalize()
    if rounded == 0:
        return "<0.0001"
    digits = -int(rounded.as_tuple().exponent)
    return f"{rounded:.{max(digits, 2)}f}"


def number(value: float) -> str:
    """A metric's value in at most four decimals, as tables compare it."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"


def home_relative(path: str) -> str:
    """A path with ~ for the home folder where that is shorter."""
    home = os.path.expanduser("~")  # noqa: PTH111  # Path.home() raises where there is none
    return "~" + path[len(home) :] if len(home) > 1 and path.startswith(home + "/") else path


def width(text: str) -> int:
    """Columns on a terminal; East Asian wide characters take two."""
    return len(text) if text.isascii() else len(text) + len(_WIDE.findall(text))


def cut(text: str, columns: int) -> str:
    """At most that many columns; what is lost is marked by an ellipsis."""
    if width(text) <= columns:
        return text
    kept = text[:columns]
    while width(kept) > columns - 1:
        kept = kept[:-1]
    return kept + "…"


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Filled up with spaces to that many columns; `right` aligns to the right."""
    space = " " * (columns - width(text))
    return space + text if right else text + space


def plural(count: int, word: str) -> str:
    """1 file, 2 files."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _coarse(span: timedelta, now: str, pattern: str) -> str:
    seconds = span.total_seconds()
    if seconds < 1:
        return now
    if seconds < 90:
        return pattern.format(f"{round(seconds)} s")
    if seconds < 90 * 60:
        return pattern.format(f"{round(seconds / 60)} min")
    if seconds < 36 * 3600:
        return pattern.format(f"{round(seconds / 3600)} h")
    return pattern.format(f"{round(seconds / 86400)} days")


def _two(much: int, unit: str, rest: int, smaller: str) -> str:
    return f"{much} {unit} {rest:02d} {smaller}" if rest else f"{much} {unit}"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, kept by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(found.group()) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    )
