"""launch: rent a machine that stays."""

from __future__ import annotations

from typing import Any

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.machine_view import machine_fields
from cloudrun.cli.options import (
    confirm,
    dry_run_option,
    json_option,
    market_option,
    open_client,
    to_usd,
    yes_option,
)
from cloudrun.cli.plan_view import field, offer_text, price_text
from cloudrun.cli.rent_options import rent_options, take_rent_options
from cloudrun.cli.shapes import machine_shape
from cloudrun.cli.text import duration, money
from cloudrun.cli.watch import Watcher
from cloudrun.models import Machine, Market, Offer, Stack

PLANNED = ("market", "stack", "regions", "max_hours", "budget_usd", "disk_gb")


@click.command(
    cls=Verb,
    examples=(
        "cloudrun launch local --name bench",
        "cloudrun launch --spot p2.xlarge --max-hours 8",
        "cloudrun launch NC6 --dry-run",
    ),
)
@click.argument("type", required=False, default="local")
@market_option
@click.option("--name", default="", help="What to call it; without it a name is made from the type.")
@click.option("--stack", default="", metavar="NAME", help="Driver, CUDA, Python and frameworks to put on it.")
@click.option("--max-hours", type=float, help="It ends itself this long after its launch.")
@click.option(
    "--budget", "budget_usd", callback=to_usd, metavar="USD", help="It ends itself when this is spent."
)
@click.option(
    "--idle-minutes",
    type=click.FloatRange(1),
    default=30.0,
    show_default=True,
    help="It ends itself when idle this long.",
)
@click.option("--keep", is_flag=True, help="No idle end: only you end it, or its --budget.")
@rent_options
@click.option("--count", type=click.IntRange(1), default=1, help="Launch so many, called NAME-1, NAME-2, ...")
@dry_run_option
@yes_option
@json_option
def launch(type: str, count: int, dry_run: bool, yes: bool, as_json: bool, **given: Any) -> None:
    """Rent a machine that stays until its guard ends it.

    TYPE is what the provider calls it (p2.xlarge, NC6), or `local`: this computer, which costs
    nothing. `submit` then uses it. The machine itself enforces its deadline and its idle end.
    """
    client = open_client()
    asked = take_rent_options(given)
    named = {name: asked[name] for name in PLANNED}
    stack, candidates = client.plan_launch(type=type, **named)
    shown = _plan_lines(stack, candidates[0], asked, count)
    limits = {name: asked[name] for name in ("keep", "max_hours", "budget_usd", "disk_gb")}
    warnings = [*client.limits(candidates), *client.check_launch(candidates, count=count, **limits)]
    for line in [*shown, *(field("warning", each) for each in warnings)]:
        (render.data if dry_run else render.say)(line)
    if dry_run:
        render.say("dry run: nothing was spent")
        return
    if candidates[0].market is not Market.OWN:
        confirm(f"Launch for {money(candidates[0].price_per_hour_usd)} an hour{_each(count)}?", yes=yes)
    _tell(client.launch_many(count, type=type, on_event=Watcher(), **asked), as_json=as_json)


def _each(count: int) -> str:
    return f" each ({count} machines)" if count > 1 else ""


def _plan_lines(stack: Stack, offer: Offer, asked: dict[str, Any], count: int) -> list[str]:
    return [
        field("machine", offer_text(offer) + _each(count)),
        field("stack", stack.name),
        field("price", price_text(offer.price_per_hour_usd, offer.market, offer.price_as_of)),
        field("ends", _ends(asked)),
        *([field("warning", offer.warning)] if offer.warning else []),
    ]


def _ends(asked: dict[str, Any]) -> str:
    if asked["keep"]:
        spent = f"when {money(asked['budget_usd'])} are spent, or " if asked["budget_usd"] else ""
        return f"{spent}when you terminate it, and not before (--keep)"
    limits = [f"after {duration(asked['idle_minutes'] * 60)} without work"]
    if asked["max_hours"]:
        limits.append(f"{duration(asked['max_hours'] * 3600)} after its launch")
    if asked["budget_usd"]:
        limits.append(f"when {money(asked['budget_usd'])} are spent")
    return ", or ".join(limits)


def _tell(machines: list[Machine], *, as_json: bool) -> None:
    if as_json:
        shapes = [machine_shape(machine, cost_usd=None, runs=()) for machine in machines]
        render.as_json(shapes if len(shapes) > 1 else shapes[0])
        return
    for machine in machines:
        render.lines(machine_fields(machine))
    machine = machines[0]
    render.say(f"use it with: cloudrun submit JOB --on {machine.name}, or cloudrun ssh {machine.name}")
