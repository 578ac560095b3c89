"""cost report: what was spent, as a table, JSON, CSV or a page, and what still costs."""

from __future__ import annotations

import csv
import io
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudrun.cli import render
from cloudrun.cli.cost_text import NONE, Money, currency_options, read_money, say_wrapped
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import json_option, open_client
from cloudrun.cli.shapes import time_shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import clock, home_relative, plural, until
from cloudrun.errors import UsageError
from cloudrun.report import BY, CostReport, Row, Running, Saving

if TYPE_CHECKING:
    from cloudrun.client import Client

SHOWN, SHOWN_BARS = 30, 12
CSV_TITLES = ("hours", "compute", "disk", "address", "other", "total", "estimated", "unknown", "billed")


@click.command(
    cls=Verb,
    examples=(
        "cloudrun cost report --by month",
        "cloudrun cost report --by machine --since 2026-11-01 --currency JPY",
        "cloudrun cost report --by job --csv > jobs.csv",
        "cloudrun cost report --html report.html",
    ),
)
@click.option("--by", type=click.Choice(BY), default="month", show_default=True, help="What a line is about.")
@click.option("--since", default="", metavar="DATE", help="From this day (UTC) on, e.g. 2026-11-01.")
@currency_options
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, every line.")
@click.option("--html", type=click.Path(path_type=Path), help="Write one page with plots.")
@click.option(
    "-n", "--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="At most this many."
)
@json_option
def report(
    by: str, since: str, currency: str, rate_pairs: tuple[str, ...], as_csv: bool, html: Path | None,
    limit: int, as_json: bool,
) -> None:  # fmt: skip
    """Show what was spent, and what still costs.

    The total is that of all lines, also of those not shown. Days and months are UTC's. A price that nobody
    knows is marked by +? and is in no sum. Machines that run are listed with their cost so far and at their
    deadline.
    """
    if as_json and as_csv:
        raise UsageError("both --json and --csv", hint="take one of them")
    client = open_client()
    money = read_money(client.settings, currency, rate_pairs)
    every = as_json or as_csv
    found = client.cost_report(by=by, since=_since(since), limit=None if every else limit, rates=money.rates)
    if html:
        _write_page(_page(client, found, money), html)
    if as_json:
        render.as_json(_shape(found, money))
    elif as_csv:
        render.content(_csv(found, money).encode())
    elif not html:
        _show(found, money)


def _since(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since {text}: no day", hint="write it as 2026-11-01") from None


def _show(found: CostReport, money: Money) -> None:
    rows = [*found.rows, found.total] if found.rows else []
    if not rows:
        render.say("nothing was spent" + (f" since {found.since}" if found.since else " yet"))
        return
    render.table(_columns(found.by, money.currency), [_row(row, found.by, money) for row in rows])
    if found.running:
        render.data()
        render.table(RUNNING, [_running_row(each, found.made_at, money) for each in found.running])
    say_wrapped(_remarks(found, money))


def _columns(by: str, currency: str) -> tuple[Column, ...]:
    return (
        Column(by.upper(), 0, least=12),
        Column("HOURS", 4, right=True),
        Column("COMPUTE", 3, right=True),
        Column("DISK", 5, right=True),
        Column("ADDRESS", 6, right=True),
        Column("OTHER", 7, right=True, optional=True),
        Column(f"TOTAL {currency}", 0, right=True),
        Column("ESTIMATED", 4, right=True, optional=True),
        Column("BILLED", 1, right=True, optional=True),
    )


RUNNING = (
    Column("RUNNING", 0, least=12),
    Column("TYPE", 2, least=10),
    Column("MARKET", 4),
    Column("SINCE", 3),
    Column("SO FAR", 0, right=True),
    Column("ENDS", 2, optional=True),
    Column("BY THEN", 1, right=True, optional=True),
)


def _row(row: Row, by: str, money: Money) -> tuple[str, ...]:
    unknown = " +?" if row.unknown else ""
    return (
        row.key or NONE.get(by, "(none)"),
        f"{row.hours:,.1f}",
        money.total(row.compute_usd),
        money.total(row.disk_usd),
        money.total(row.address_usd),
        money.total(row.other_usd) if row.other_usd else "",
        money.total(row.total_usd) + unknown,
        money.total(row.estimated_usd) if row.estimated_usd else "",
        "" if row.billed_usd is None else money.total(row.billed_usd),
    )


def _running_row(each: Running, now: datetime, money: Money) -> tuple[str, ...]:
    deadline = each.deadline_at
    return (
        each.machine,
        each.described,
        each.market,
        clock(each.since, now),
        money.total(each.cost_usd),
        "" if deadline is None else until(deadline, now) if deadline > now else "overdue",
        "" if deadline is None else money.total(each.cost_at_deadline_usd),
    )


def _remarks(found: CostReport, money: Money) -> list[str]:
    lines = []
    if found.more:
        every = found.more + len(found.rows)
        lines.append(f"{plural(found.more, 'more line')} in the total; --limit {every} shows them")
    if found.total.unknown:
        lines.append("+? marks sums without what has no known price")
    if found.oldest_price is not None:
        days = (found.made_at.date() - found.oldest_price).days
        amount = f"{money.total(found.at_old_prices_usd)} {money.currency}"
        lines.append(f"{amount} by old price lists, the oldest of {found.oldest_price}, {days:,} days ago")
    saved = [each.saved_usd for each in found.savings if each.saved_usd is not None]
    if saved:
        lines.append(f"spot saved {money.total(sum(saved, Decimal(0)))} {money.currency} against on demand")
    if money.remark():
        lines.append(money.remark())
    return lines


def _csv(found: CostReport, money: Money) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([found.by, "currency", *CSV_TITLES])
    for row in found.rows:
        parts = [row.compute_usd, row.disk_usd, row.address_usd, row.other_usd]
        amounts = [*parts, row.total_usd, row.estimated_usd]
        writer.writerow([
            _harmless(row.key),
            money.currency,
            f"{row.hours:.4f}",
            *(money.exact(amount) for amount in amounts),
            "yes" if row.unknown else "",
            money.exact(row.billed_usd) or "",
        ])  # fmt: skip
    return text.getvalue()


def _harmless(cell: str) -> str:
    """A spreadsheet takes what begins so for a formula."""
    return "'" + cell if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _page(client: Client, found: CostReport, money: Money) -> str:
    from cloudrun.cli.cost_page import Pages, make_page

    pages = Pages(
        asked=found,
        months=client.cost_report(by="month", since=found.since, rates=money.rates),
        machines=client.cost_report(by="machine", since=found.since, limit=SHOWN_BARS, rates=money.rates),
        days=client.cost_series(by="type", since=found.since),
    )
    return make_page(pages, money)


def _write_page(page: str, path: Path) -> None:
    try:
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="choose another file") from error
    render.say(f"the report is in {home_relative(str(path))}")


def _shape(found: CostReport, money: Money) -> dict[str, Any]:
    return {
        "by": found.by,
        "since": found.since.isoformat() if found.since else None,
        "made_at": time_shape(found.made_at),
        "currency": money.currency,
        "rate": float(money.rates[money.currency]),
        "rows": [_row_shape(row, money) for row in found.rows],
        "total": _row_shape(found.total, money),
        "running": [_running_shape(each) for each in found.running],
        "savings": [_saving_shape(each) for each in found.savings],
        "oldest_price": found.oldest_price.isoformat() if found.oldest_price else None,
        "at_old_prices_usd": _usd(found.at_old_prices_usd),
    }


def _row_shape(row: Row, money: Money) -> dict[str, Any]:
    total = money.exact(row.total_usd)
    return {
        "key": row.key,
        "hours": round(float(row.hours), 6),
        "compute_usd": _usd(row.compute_usd),
        "disk_usd": _usd(row.disk_usd),
        "address_usd": _usd(row.address_usd),
        "other_usd": _usd(row.other_usd),
        "total_usd": None if row.unknown else _usd(row.total_usd),
        "known_usd": _usd(row.total_usd),
        "total": None if row.unknown or total is None else float(total),
        "estimated_usd": _usd(row.estimated_usd),
        "unknown": row.unknown,
        "billed_usd": _usd(row.billed_usd),
    }


def _running_shape(each: Running) -> dict[str, Any]:
    return {
        "machine": each.machine,
        "type": each.type,
        "provider": each.provider,
        "market": each.market,
        "since": time_shape(each.since),
        "on": each.on,
        "cost_usd": _usd(each.cost_usd),
        "deadline_at": time_shape(each.deadline_at),
        "cost_at_deadline_usd": _usd(each.cost_at_deadline_usd),
    }


def _saving_shape(each: Saving) -> dict[str, Any]:
    return {
        "provider": each.provider,
        "type": each.type,
        "hours": round(float(each.hours), 6),
        "paid_usd": _usd(each.paid_usd),
        "on_demand_usd": _usd(each.on_demand_usd),
        "saved_usd": _usd(each.saved_usd),
    }


def _usd(amount: Decimal | None) -> float | None:
    return None if amount is None else round(float(amount), 6)
