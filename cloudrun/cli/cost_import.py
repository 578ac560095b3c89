"""cost import: a provider's bill laid beside the ledger, machine by machine."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from cloudrun.bills import Difference, Imported
from cloudrun.cli import render
from cloudrun.cli.cost_text import Money, currency_options, read_money
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import json_option, open_client
from cloudrun.cli.table import Column
from cloudrun.cli.text import plural, visible


@click.command(
    cls=Verb,
    examples=(
        "cloudrun cost import cur-2026-11-00001.csv.gz",
        "cloudrun cost import part_0.csv part_1.csv --rate EUR=0.92",
    ),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@currency_options
@json_option
def import_bill(files: tuple[Path, ...], currency: str, rate_pairs: tuple[str, ...], as_json: bool) -> None:
    """Lay a provider's bill beside the ledger.

    AWS Cost and Usage Reports (CSV, also gzipped or zipped; Parquet with pyarrow; with resource ids) and
    Azure's cost exports (CSV). Lines of our machines and images are found by their resource's id and by the
    tags cloudrun-name and cloudrun-image, and kept, so that `cost report` shows what was billed; all others
    are only added up. Importing twice changes nothing. Name the parts of one bill together.
    """
    client = open_client()
    money = read_money(client.settings, currency, rate_pairs)
    found = client.import_bills(files, rates=money.rates)
    if as_json:
        render.as_json([_shape(each) for each in found])
        return
    for number, each in enumerate(found):
        if number:
            render.data()
        _show(each, money)
    if money.remark():
        render.say(money.remark())


def _show(found: Imported, money: Money) -> None:
    if found.differences:
        rows = [_row(each, money) for each in (*found.differences, _total(found.differences))]
        render.table(_columns(money.currency), rows)
    kept = f"{plural(found.matched, 'line')} of our machines, {found.new:,} new, {found.changed:,} changed"
    render.say(
        visible(f"{found.provider}, {found.first_day} to {found.last_day}: {found.lines:,} lines; {kept}")
    )
    if found.foreign_usd:
        render.say(f"{money.total(found.foreign_usd)} {money.currency} on lines that are not of our machines")


def _columns(currency: str) -> tuple[Column, ...]:
    return (
        Column("MACHINE", 0, least=12),
        Column(f"OURS {currency}", 1, right=True),
        Column("BILLED", 1, right=True),
        Column("DIFFERENCE", 0, right=True),
        Column("WHY", 2, least=24, optional=True),
    )


def _row(each: Difference, money: Money) -> tuple[str, ...]:
    apart = each.difference_usd
    return (
        each.machine,
        money.total(each.ours_usd),
        money.total(each.billed_usd),
        ("+" if apart > 0 else "") + money.total(apart) if apart else "0",
        "; ".join(each.why),
    )


def _total(differences: Sequence[Difference]) -> Difference:
    ours = sum((each.ours_usd for each in differences), Decimal(0))
    return Difference("total", ours, sum((each.billed_usd for each in differences), Decimal(0)))


def _shape(found: Imported) -> dict[str, Any]:
    return {
        "provider": found.provider,
        "first_day": found.first_day.isoformat(),
        "last_day": found.last_day.isoformat(),
        "lines": found.lines,
        "matched": found.matched,
        "new": found.new,
        "changed": found.changed,
        "foreign_usd": round(float(found.foreign_usd), 6),
        "machines": [_difference_shape(each) for each in found.differences],
        "total": _difference_shape(_total(found.differences)),
    }


def _difference_shape(each: Difference) -> dict[str, Any]:
    return {
        "machine": each.machine,
        "ours_usd": round(float(each.ours_usd), 6),
        "billed_usd": round(float(each.billed_usd), 6),
        "difference_usd": round(float(each.difference_usd), 6),
        "why": list(each.why),
    }
