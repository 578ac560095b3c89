"""What the store's sums answer: the questions in SQL, and their answers as records. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from cloudrun.store_rows import plain_text

OF_A_KIND = ("provider", "type", "market", "project", "job")
BY = (*OF_A_KIND, "month", "day", "machine", "run")

_COLUMNS = ("total", "compute", "disk", "address", "other", "estimated", "seconds", "unknown")
HALF_A_MONTH = 16  # days
MEASURES = ", ".join(f"sum({name})" for name in _COLUMNS)

Query = tuple[str, list[str]]  # the text, and the values of its question marks


@dataclass(frozen=True, slots=True)
class Spent:
    """What one key of a report came to. Money in millionths of a US dollar; seconds of compute billed;
    unknown: days of lines whose price is not known, which no sum holds."""

    key: str
    total: int = 0
    compute: int = 0
    disk: int = 0
    address: int = 0
    other: int = 0
    estimated: int = 0  # part of the total
    seconds: int = 0
    unknown: int = 0

    def plus(self, other: Spent) -> Spent:
        """Both together, under this key."""
        return Spent(
            self.key,
            self.total + other.total,
            self.compute + other.compute,
            self.disk + other.disk,
            self.address + other.address,
            self.other + other.other,
            self.estimated + other.estimated,
            self.seconds + other.seconds,
            self.unknown + other.unknown,
        )


class SpentList(list[Spent]):
    """Some sums, and how many there are of all keys together."""

    def __init__(self, found: Iterable[Spent], of: int) -> None:
        super().__init__(found)
        self.of = of


@dataclass(frozen=True, slots=True)
class SpentOnType:
    """What one market of one type came to, and from which day its price was ("" = of the time itself)."""

    provider: str
    region: str
    type: str
    market: str
    old_price: str
    compute: int
    seconds: int


def sum_query(by: str, since: date | None, keys: Sequence[str] | None = None) -> Query:
    """One row a key, of these keys or of all: the key, its measures, and how many rows there are without a
    limit. With ? for the limit at the end."""
    assert by in BY  # noqa: S101  # our own callers
    if by in ("machine", "run"):
        return _dearest_in_all(by, keys) if since is None else _dearest_since(by, since, keys)
    table, where, values = period(since) if by != "day" else ("spent_by_day", "day >= ?", [begin(since)])
    column = "substr(day, 1, 7)" if by == "month" and since is not None else by
    joined = f"{table} JOIN kinds ON kinds.id = kind" if by in OF_A_KIND else table
    order = "1 DESC" if by in ("month", "day") else "2 DESC, 1"
    only, names = _only(column, keys)
    return (
        f"SELECT {column}, {MEASURES}, count(*) OVER () FROM {joined} WHERE {where} AND {only} "  # noqa: S608  # our own names
        f"GROUP BY 1 ORDER BY {order} LIMIT ?",
        [*values, *names],
    )


def period(since: date | None) -> tuple[str, str, list[str]]:
    """Table, condition and its values: months in all, or days."""
    if since is None:
        return "spent_by_month", "TRUE", []
    return "spent_by_day", "day >= ?", [since.isoformat()]


def begin(since: date | None) -> str:
    """The day as the store writes it; "" comes before all."""
    return since.isoformat() if since else ""


def _dearest_in_all(by: str, keys: Sequence[str] | None) -> Query:
    only, values = _only(by, keys)
    return (
        f"SELECT {by}, {', '.join(_COLUMNS)}, (SELECT count(*) FROM spent_by_{by} WHERE {only}) "  # noqa: S608  # one of BY
        f"FROM spent_by_{by} WHERE {only} ORDER BY total DESC LIMIT ?",
        [*values, *values],
    )


def _dearest_since(by: str, since: date, keys: Sequence[str] | None) -> Query:
    """Whole months from the sums, and the month of `since` by its days. Which keys are the dearest is found
    by their totals; only of those is everything added up. Last stands how many keys there are."""
    only, names = _only(by, keys)
    days, values, whole, sign = _days_of_first_month(by, since, only)
    sums = ", ".join(
        f"sum({whole.format(f'months.{name}')}) {sign} coalesce(days.{name}, 0)" for name in _COLUMNS
    )
    left = (
        f"left_over AS MATERIALIZED (SELECT {by}, "  # noqa: S608  # one of BY
        f"sum({whole.format('months.total')}) {sign} coalesce(days.total, 0) AS total "
        f"FROM spent_by_{by}_month AS months LEFT JOIN days USING ({by}) WHERE month >= ? AND {only} "
        f"GROUP BY {by} HAVING sum({whole.format('months.parts')}) {sign} coalesce(days.parts, 0) > 0)"
    )
    top = f"top AS MATERIALIZED (SELECT {by} FROM left_over ORDER BY total DESC, {by} LIMIT ?)"  # noqa: S608  # one of BY
    return (
        f"WITH {days}, {left}, {top} SELECT {by}, {sums}, (SELECT count(*) FROM left_over) "  # noqa: S608  # our own names
        f"FROM top JOIN spent_by_{by}_month AS months USING ({by}) LEFT JOIN days USING ({by}) "
        f"WHERE month >= '{_month(since)}' GROUP BY {by} ORDER BY 2 DESC, 1",
        [*values, *names, _month(since), *names],
    )


def _days_of_first_month(by: str, since: date, only: str) -> tuple[str, list[str], str, str]:
    """What some days of the month of `since` came to, as a table; its values; how a measure of a month
    counts; whether the days are added or taken off. The shorter part of the month is read: up to the 16th the
    whole month counts and the days before `since` are taken off, later the days from then on are added.

    Grouped twice, as a few sums of many shares are cheaper than many.
    """
    month = _month(since)
    if since.day <= HALF_A_MONTH:
        begins, ends, whole, sign = f"{month}-01", since.isoformat(), "{}", "-"
    else:
        begins, ends, whole, sign = since.isoformat(), f"{month}-32", f"iif(month > '{month}', {{}}, 0)", "+"
    shares = (
        f"SELECT {by}, what, estimated, sum(coalesce(micros, 0)) AS micros, sum(seconds) AS seconds, "  # noqa: S608  # one of BY
        "count(*) - count(micros) AS unknown, count(*) AS parts FROM shares "
        f"WHERE day >= ? AND day < ? AND {only} GROUP BY {by}, what, estimated"
    )
    text = (
        f"days AS MATERIALIZED (SELECT {by}, sum(micros) AS total, "  # noqa: S608  # one of BY
        "sum(iif(what = 'compute', micros, 0)) AS compute, sum(iif(what = 'disk', micros, 0)) AS disk, "
        "sum(iif(what = 'address', micros, 0)) AS address, "
        "sum(iif(what IN ('compute', 'disk', 'address'), 0, micros)) AS other, "
        "sum(iif(estimated, micros, 0)) AS estimated, sum(iif(what = 'compute', seconds, 0)) AS seconds, "
        f"sum(unknown) AS unknown, sum(parts) AS parts FROM ({shares}) GROUP BY {by})"
    )
    return text, [begins, ends], whole, sign


def _only(column: str, keys: Sequence[str] | None) -> Query:
    if keys is None:
        return "TRUE", []
    return f"{column} IN ({', '.join('?' * len(keys))})", [plain_text(key) for key in keys]


def _month(since: date) -> str:
    return since.isoformat()[:7]
