"""audit: what is rented, left over, or billed for nothing, at every provider."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import confirm, dry_run_option, json_option, open_client, yes_option
from cloudrun.cli.shapes import Shape, money_shape, time_shape
from cloudrun.cli.table import Column, lines
from cloudrun.cli.text import UNKNOWN, money, plain_money, plural, short_age, visible
from cloudrun.cli.watch import Watcher
from cloudrun.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudrun.audit_item import Item
    from cloudrun.client import Client

COLUMNS = (
    Column("KIND", 0),
    Column("NAME", 3, least=12),
    Column("PROVIDER", 6, optional=True),
    Column("REGION", 7, optional=True),
    Column("STATE", 5, optional=True),
    Column("FOR", 8, least=8, optional=True),
    Column("RUN", 9, optional=True),
    Column("AGE", 4, right=True, optional=True),
    Column("USD/MONTH", 1, right=True),
    Column("REMARK", 2, least=27, optional=True),
)
PLAN_COLUMNS = (
    Column("WHAT TO DO", 0),
    Column("KIND", 2),
    Column("NAME", 1, least=12),
    Column("REGION", 5, optional=True),
    Column("USD/MONTH", 3, right=True),
    Column("BECAUSE", 4, least=16),
)


@click.command(
    cls=Verb,
    examples=("cloudrun audit", "cloudrun audit --all --provider aws", "cloudrun audit --fix --dry-run"),
)
@click.option("--fix", is_flag=True, help="End what is billed for nothing; shows first what it will do.")
@click.option(
    "--all", "everything", is_flag=True, help="Also what others have in the account; that is only shown."
)
@click.option("--provider", default="", help="Only there.")
@dry_run_option
@yes_option
@json_option
def audit(fix: bool, everything: bool, provider: str, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Find what is rented, left over, or billed for nothing.

    Asks every provider, in every region, for all that carries cloudrun's tags: machines, disks,
    addresses, snapshots, images, groups, keys. Without --provider also what belongs to nothing: outputs
    whose run is gone, here and in buckets, and datasets that no run was given. The exit code is 4
    while something is wrong.
    """
    client = open_client()
    found = client.audit(provider=provider, everything=everything, on_event=Watcher())
    wrong = [item for item in found if item.problem]
    if as_json:
        render.as_json([item_shape(item) for item in found])
    elif found:
        now = datetime.now(UTC)
        render.table(COLUMNS, [_row(item, now) for item in found])
    render.say(_sum(found, wrong))
    if fix and wrong:
        left = _fix(client, wrong, dry_run=dry_run, yes=yes)
        return MachineError.exit_code if left else 0
    if any(item.cure for item in wrong):
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
        "since": time_shape(item.since),
        "price_per_month_usd": money_shape(item.price_per_month_usd),
        "used_by": item.used_by,
        "run": item.run,
        "foreign": item.foreign,
        "remark": item.remark,
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
        item.run if item.run != item.used_by else "",
        short_age((now - item.since).total_seconds()) if item.since else "",
        _price(item),
        item.problem or item.remark,
    )


def _price(item: Item) -> str:
    return UNKNOWN if item.price_per_month_usd is None else plain_money(item.price_per_month_usd)


def _sum(found: Sequence[Item], wrong: Sequence[Item]) -> str:
    """`3 things, 91.20 USD a month; 1 of them wrong; 2 things of others, 30.00 USD a month`"""
    ours = [item for item in found if not item.foreign]
    foreign = [item for item in found if item.foreign]
    others = f"; {plural(len(foreign), 'thing')} of others, {_total(foreign)} a month" if foreign else ""
    if not ours:
        return f"nothing is rented, and nothing is left over{others}"
    end = f"{len(wrong)} of them wrong" if wrong else "all as it should be"
    return f"{plural(len(ours), 'thing')}, {_total(ours)} a month; {end}{others}"


def _total(items: Sequence[Item]) -> str:
    prices = [item.price_per_month_usd for item in items]
    known = sum((price for price in prices if price is not None), Decimal(0))
    unknown = prices.count(None)
    return money(known) + (f" and {plural(unknown, 'unknown price')}" if unknown else "")


def _fix(client: Client, wrong: Sequence[Item], *, dry_run: bool, yes: bool) -> bool:
    """Show, ask, do; whether something is left."""
    items = [item for item in wrong if item.cure]
    if len(items) < len(wrong):
        render.say(f"{plural(len(wrong) - len(items), 'thing')} only you can mend")
    if not items:
        return True
    _show_plan(items)
    if dry_run:
        return True
    confirm("Do it?", yes=yes)
    left = len(items) < len(wrong)
    for item, refusal in client.fix(items, on_event=Watcher()):
        render.say(f"{item.kind} {item.name}: {refusal or 'done'}")
        left = left or bool(refusal)
    return left


def _show_plan(items: Sequence[Item]) -> None:
    """What will be done and what it saves: no data, so not on stdout."""
    from cloudrun.audit_item import ENDS

    rows = [[visible(cell) for cell in _plan_row(item)] for item in items]
    for line in lines(PLAN_COLUMNS, rows, render.columns()):
        render.say(line)
    ending = [item for item in items if item.cure in ENDS]
    if any(item.price_per_month_usd != 0 for item in ending):
        render.say(f"that ends {_total(ending)} a month")


def _plan_row(item: Item) -> tuple[str, ...]:
    what = item.cure.value if item.cure else ""
    return what, item.kind, item.name, item.region, _price(item), item.problem
