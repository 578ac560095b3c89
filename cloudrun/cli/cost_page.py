"""The cost report as one HTML file that needs no other: figures, plots, tables; light, dark and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html import escape

from cloudrun.cli.cost_charts import COLOURS, bars, columns, legend, pairs
from cloudrun.cli.cost_text import NONE, Money
from cloudrun.cli.text import UNKNOWN
from cloudrun.report import CostReport, Row, Running, Saving
from cloudrun.store_charges import IMAGE_TYPE

MOST_DAYS = 62  # a column a day up to two months, a month beyond
MOST_SERIES = COLOURS
DAY_LABEL = "%b %-d"

_STYLE = """
:root { color-scheme: light dark; --bg: #fff; --card: #f6f8f9; --ink: #1c2329; --quiet: #5f6b76;
  --line: #d8dde2;
  --c0: #0072b2; --c1: #e69f00; --c2: #009e73; --c3: #cc79a7; --c4: #56b4e9; --c5: #d55e00; --c6: #7f7f7f; }
@media (prefers-color-scheme: dark) { :root { --bg: #14181c; --card: #1d2328; --ink: #e6eaee;
  --quiet: #98a4af;
  --line: #333c44; --c0: #4aa3df; --c1: #f0b53a; --c2: #2dc795; --c3: #e39cc3; --c4: #8fd0f5;
  --c5: #f08346; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--bg); max-width: 66rem;
  margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 0 0 .6rem; }
.quiet { color: var(--quiet); } .quiet, .legend { font-size: .87rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem;
  margin: 1.2rem 0; }
.tiles div, section { background: var(--card); border-radius: 8px; padding: 1rem 1.2rem;
  break-inside: avoid; }
.tiles b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
section { margin: 0 0 1rem; overflow-x: auto; }
svg { width: 100%; min-width: 34rem; height: auto; display: block; font: 12px system-ui, sans-serif; }
svg text { fill: var(--quiet); } svg text.amount { fill: var(--ink); } .grid { stroke: var(--line); }
.compared { fill: none; stroke: var(--quiet); stroke-dasharray: 4 3; }
.c0 { fill: var(--c0); background: var(--c0); } .c1 { fill: var(--c1); background: var(--c1); }
.c2 { fill: var(--c2); background: var(--c2); } .c3 { fill: var(--c3); background: var(--c3); }
.c4 { fill: var(--c4); background: var(--c4); } .c5 { fill: var(--c5); background: var(--c5); }
.c6 { fill: var(--c6); background: var(--c6); }
.legend { margin: .4rem 0 0; } .legend span { display: inline-block; margin-right: 1.4em; }
.k { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
td sup { display: inline-block; width: 0; font-size: 1em; line-height: 0; vertical-align: baseline; }
tr.total td { font-weight: 600; border-bottom: 0; }
@media print { :root { color-scheme: light; --bg: #fff; --card: #fff; --ink: #000; --quiet: #444;
  --line: #bbb;
  --c0: #0072b2; --c1: #e69f00; --c2: #009e73; --c3: #cc79a7; --c4: #56b4e9; --c5: #d55e00; }
  body { margin: 0; max-width: none; font-size: 11px; } tr { break-inside: avoid; } svg { min-width: 0; }
  .tiles { grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); } .tiles b { font-size: 1.1rem; }
  section, .tiles div { border: 1px solid var(--line); }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } @page { margin: 14mm; } }
"""


@dataclass(frozen=True, slots=True)
class Pages:
    """Everything that the page shows: three reports of the same moment, and what each day came to."""

    asked: CostReport
    months: CostReport
    machines: CostReport
    days: Sequence[tuple[date, str, Decimal]]  # (day, what, USD)


def make_page(pages: Pages, money: Money) -> str:
    """The page. The same figures give the same page."""
    asked = pages.asked
    since = f"since {asked.since}" if asked.since else "all that is on record"
    title = f"What was spent: {since}"
    body = "\n".join([
        f'<h1>{escape(title)}</h1>\n<p class="quiet">{escape(_made(asked, money))}</p>',
        _tiles(pages, money),
        _over_time(pages, money),
        _running(asked.running, asked.made_at, money),
        _by_machine(pages.machines, money),
        _saved(asked.savings, money),
        _table_of(asked, money),
        _table_of(pages.months, money) if asked.by != "month" else "",
        f'<p class="quiet">{"<br>".join(escape(line) for line in _remarks(asked, money))}</p>',
    ])  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _made(found: CostReport, money: Money) -> str:
    rate = money.remark()
    return f"As of {found.made_at:%Y-%m-%d %H:%M} UTC, in {money.currency}." + (f" {rate}." if rate else "")


def _tiles(pages: Pages, money: Money) -> str:
    asked = pages.asked
    month = f"{asked.made_at:%Y-%m}"
    this_month = next((row for row in pages.months.rows if row.key == month), Row(month))
    saved = [each.saved_usd for each in asked.savings if each.saved_usd is not None]
    tiles = [
        ("in all", _total(asked.total, money)),
        ("this month", _total(this_month, money)),
        ("what costs now", _counted(asked.running)),
        ("spot saved", money.total(sum(saved, Decimal(0))) if saved else "nothing yet"),
    ]
    billed = asked.total.billed_usd
    if billed is not None:
        tiles.append(("billed, as imported", money.total(billed)))
    return '<div class="tiles">' + "".join(
        f'<div><span class="quiet">{name}</span><b>{escape(value)}</b></div>' for name, value in tiles
    ) + "</div>"  # fmt: skip


def _counted(running: Sequence[Running]) -> str:
    images = sum(each.type == IMAGE_TYPE for each in running)
    on = sum(each.on and each.type != IMAGE_TYPE for each in running)
    off = len(running) - images - on
    parts = [(on, "on"), (off, "off"), (images, "image" if images == 1 else "images")]
    return ", ".join(f"{count} {what}" for count, what in parts if count) or "nothing"


def _over_time(pages: Pages, money: Money) -> str:
    """A column a day, or a month where the days are too many, by where the money went."""
    if not pages.days:
        return ""
    first, last = pages.days[0][0], max(pages.asked.made_at.date(), pages.days[-1][0])
    daily = (last - first).days < MOST_DAYS
    places = _days(first, last) if daily else _months(first, last)
    keys = _greatest(pages.days)
    index = {place: i for i, place in enumerate(places)}
    series = {key: [Decimal(0)] * len(places) for key in keys}
    for day, key, amount in pages.days:
        series[key if key in series else keys[-1]][index[day if daily else day.replace(day=1)]] += amount
    names = [f"{place:{DAY_LABEL}}" if daily else f"{place:%Y-%m}" for place in places]
    kept = {key: values for key, values in series.items() if any(values)}
    chart = columns(names, kept, money.axis)
    return _section(f"Cost by {'day' if daily else 'month'}", chart + legend(list(kept)))


def _greatest(days: Sequence[tuple[date, str, Decimal]]) -> list[str]:
    """The keys with the most money first; the last stands for those that found no colour."""
    sums: dict[str, Decimal] = {}
    for _, key, amount in days:
        sums[key] = sums.get(key, Decimal(0)) + amount
    keys = sorted(sums, key=lambda key: (-sums[key], key))
    return keys if len(keys) <= MOST_SERIES else [*keys[: MOST_SERIES - 1], "others"]


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _months(first: date, last: date) -> list[date]:
    begin, end = first.year * 12 + first.month - 1, last.year * 12 + last.month - 1
    return [date(number // 12, number % 12 + 1, 1) for number in range(begin, end + 1)]


def _by_machine(found: CostReport, money: Money) -> str:
    rows = [
        (row.key or NONE.get(found.by, "(none)"), row.total_usd) for row in found.rows if row.total_usd > 0
    ]
    if not rows:
        return ""
    more = f'<p class="quiet">and {found.more:,} more</p>' if found.more else ""
    return _section("Cost by machine", bars(rows, money.total) + more)


def _saved(savings: Sequence[Saving], money: Money) -> str:
    known = [each for each in savings if each.on_demand_usd is not None]
    if not known:
        return ""
    rows = [(each.type, each.paid_usd, each.on_demand_usd or Decimal(0)) for each in known]
    note = (
        "Filled: paid at the spot price. Dashed: the same hours on demand, at the catalogue's price of today."
    )
    return _section("Spot against on demand", f'{pairs(rows, money.total)}<p class="quiet">{note}</p>')


def _running(running: Sequence[Running], now: datetime, money: Money) -> str:
    if not running:
        return ""
    rows = [
        [
            escape(each.machine),
            escape(each.described),
            escape(each.market),
            f"{each.since.astimezone(UTC):%Y-%m-%d %H:%M}",
            money.total(each.cost_usd),
            _deadline(each, now),
            money.total(each.cost_at_deadline_usd) if each.deadline_at else "",
        ]
        for each in running
    ]
    titles = ["machine", "type", "market", "since (UTC)", "so far", "ends (UTC)", "by then"]
    return _section("What costs now", _table(titles, rows, kind="words"))


def _deadline(each: Running, now: datetime) -> str:
    if each.deadline_at is None:
        return "no deadline"
    return f"{each.deadline_at.astimezone(UTC):%Y-%m-%d %H:%M}" if each.deadline_at > now else "overdue"


def _table_of(found: CostReport, money: Money) -> str:
    billed = found.total.billed_usd is not None
    titles = [found.by, "hours", "compute", "disk", "address", "other", "total", "estimated"]
    rows = [_cells(row, found.by, money, billed=billed) for row in (*found.rows, found.total)]
    more = f'<p class="quiet">{found.more:,} more are in the total.</p>' if found.more else ""
    return _section(
        f"By {found.by}", _table([*titles, *(["billed"] if billed else [])], rows, total=True) + more
    )


def _cells(row: Row, by: str, money: Money, *, billed: bool) -> list[str]:
    amounts = (row.compute_usd, row.disk_usd, row.address_usd, row.other_usd)
    return [
        escape(row.key or NONE.get(by, "(none)")),
        f"{row.hours:,.1f}",
        *(money.total(amount) for amount in amounts),
        f"{money.total(row.total_usd)}{'<sup>&nbsp;+?</sup>' if row.unknown else ''}",
        money.total(row.estimated_usd),
        *([money.total(row.billed_usd) if row.billed_usd is not None else ""] if billed else []),
    ]


def _total(row: Row, money: Money) -> str:
    return money.total(row.total_usd) + (" +?" if row.unknown else "")


def _remarks(found: CostReport, money: Money) -> list[str]:
    lines = []
    if found.total.unknown:
        lines.append(f"+? marks sums without what has an {UNKNOWN} price.")
    if found.oldest_price is not None:
        lines.append(
            f"{money.total(found.at_old_prices_usd)} {money.currency} were counted by price lists older "
            f"than a week, the oldest of {found.oldest_price}."
        )
    if found.total.estimated_usd:
        amount = f"{money.total(found.total.estimated_usd)} {money.currency}"
        lines.append(f"{amount} are estimates, which the provider's own prices may still replace.")
    return lines


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, total: bool = False, kind: str = "figures"
) -> str:
    head = "".join(f"<th>{title}</th>" for title in titles)
    lines = []
    for number, row in enumerate(rows):
        style = ' class="total"' if total and number == len(rows) - 1 else ""
        lines.append(f"<tr{style}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    body = "\n".join(lines)
    return f'<table class="{kind}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'
