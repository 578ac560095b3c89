"""audit: what is rented, left over, or billed for nothing, at every provider."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import confirm, dry_run_option, json_option, open_client, yes_option
from cloudrun.cli.shapes import Shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import UNKNOWN, money, plain_money, plural, short_age
from cloudrun.cli.watch import Watcher
from cloudrun.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudrun.audit_item import Item
    from cloudrun.client import Client

COLUMNS = (
    Column("KIND", 0),
    Column("NAME", 1),
    Column("PROVIDER", 5, optional=True),
    Column("REGION", 6, optional=True),
    Column("STATE", 3, optional=True),
    Column("FOR", 7, optional=True),
    Column("AGE", 8, right=True, optional=True),
    Column("USD/MONTH", 2, right=True),
    Column("PROBLEM", 4, least=12),
)


@click.command(
    cls=Verb, examples=("cloudrun audit", "cloudrun audit --fix", "cloudrun audit --provider azure --json")
)
@click.option("--fix", is_flag=True, help="End what is billed for nothing; shows first what it will do.")
@click.option("--provider", default="", help="Only there.")
@dry_run_option
@yes_option
@json_option
def audit(fix: bool, provider: str, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Find what is rented, left over, or billed for nothing.

    Asks every provider, in every region, for all that carries cloudrun's tags: machines, disks,
    addresses, snapshots, images, groups, keys. Without --provider also what lies here and belongs to
    nothing: outputs whose run is gone, datasets that no run was given. The exit code is 4 while
    something is wrong.
    """
    client = open_client()
    found = client.audit(provider=provider, on_event=Watcher())
    wrong = [item for item in found if item.problem]
    if as_json:
        render.as_json([item_shape(item) for item in found])
    elif found:
        now = datetime.now(UTC)
        render.table(COLUMNS, [_row(item, now) for item in found])
    render.say(_sum(found, wrong))
    if fix and wrong:
        left = _fix(client, [item for item in wrong if item.cure], dry_run=dry_run, yes=yes)
        return MachineError.exit_code if left else 0
    if wrong and not fix:
        render.say("mend it with: cloudrun audit --fix")
    return MachineError.exit_code if wrong else 0


def item_shape(item: Item) -> Shape:
    return {
        "provider": item.provider,
        "region": item.region,
        "kind": item.kind,
        "name": item.name,
        "id": item.id,
        "state": item.state,
        "since": item.since,
        "price_per_month_usd": item.price_per_month_usd,
        "used_by": item.used_by,
        "problem": item.problem,
        "fix": item.cure.value if item.cure else "",
    }


def _row(item: Item, now: datetime) -> tuple[str, ...]:
    return (
        item.kind,
        item.name,
        item.provider,
        item.region,
        item.state,
        item.used_by,
        short_age((now - item.since).total_seconds()) if item.since else "",
        UNKNOWN if item.price_per_month_usd is None else plain_money(item.price_per_month_usd),
        item.problem,
    )


def _sum(found: Sequence[Item], wrong: Sequence[Item]) -> str:
    """`3 things, 91.20 USD a month; 1 of them wrong`"""
    if not found:
        return "nothing is rented, and nothing is left over"
    prices = [item.price_per_month_usd for item in found]
    known = sum((price for price in prices if price is not None), Decimal(0))
    unknown = " and an unknown price" if None in prices else ""
    end = f"{len(wrong)} of them wrong" if wrong else "all as it should be"
    return f"{plural(len(found), 'thing')}, {money(known)}{unknown} a month; {end}"


def _fix(client: Client, items: Sequence[Item], *, dry_run: bool, yes: bool) -> bool:
    """Show, ask, do; whether something is left."""
    for item in items:
        render.say(f"{item.cure.value if item.cure else ''}: {item.kind} {item.name} ({item.problem})")
    if dry_run or not items:
        return bool(items)
    confirm("Do it?", yes=yes)
    left = False
    for item, refusal in client.fix(items, on_event=Watcher()):
        render.say(f"{item.kind} {item.name}: {refusal or 'done'}")
        left = left or bool(refusal)
    return left
