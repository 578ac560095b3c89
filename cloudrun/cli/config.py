"""config: what is set and where it comes from, and the budget of a month."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Entry, LazyGroup, Verb
from cloudrun.cli.options import json_option, open_client, to_usd
from cloudrun.cli.table import Column
from cloudrun.cli.text import plain_money
from cloudrun.errors import UsageError

if TYPE_CHECKING:
    from cloudrun.budget import Standing

SETTING_COLUMNS = (Column("SETTING", 0), Column("VALUE", 1, least=20), Column("FROM", 2, least=12))
BUDGET_COLUMNS = (
    Column("BUDGET", 0, least=8),
    Column("MONTH", 4),
    Column("USD", 1, right=True),
    Column("SPENT", 2, right=True),
    Column("TO COME", 3, right=True),
    Column("LEFT", 1, right=True),
)

config = LazyGroup(
    "config",
    help="Show the settings, and set a budget for the month.",
    sections={
        "Commands": (
            Entry("show", "cloudrun.cli.config:show", "Show every setting and where it comes from."),
            Entry("budget", "cloudrun.cli.config:budget", "Set or show what a month may cost."),
        )
    },
    examples=("cloudrun config show", "cloudrun config budget --month 50"),
)


@click.command(cls=Verb, examples=("cloudrun config show", "cloudrun config show --json"))
@json_option
def show(as_json: bool) -> None:
    """Show every setting and where it comes from.

    A variable of the environment is over config.toml in the home folder, which is over the default.
    """
    from cloudrun.config import explain_settings

    found = explain_settings()
    if as_json:
        shapes = [{"name": s.name, "value": s.value, "source": s.source, "place": s.place} for s in found]
        render.as_json(shapes)
        return
    render.table(SETTING_COLUMNS, [(each.name, each.value, each.place or each.source) for each in found])


@click.command(
    cls=Verb,
    examples=(
        "cloudrun config budget --month 50",
        "cloudrun config budget --month 20 --project svhn",
        "cloudrun config budget",
        "cloudrun config budget --off --project svhn",
    ),
)
@click.option("--month", "month_usd", callback=to_usd, metavar="USD", help="A month (UTC) may cost so much.")
@click.option("--project", default="", metavar="NAME", help="Of this project alone.")
@click.option("--off", is_flag=True, help="Remove the budget.")
@json_option
def budget(month_usd: Decimal | None, project: str, off: bool, as_json: bool) -> None:
    """Set or show what a month may cost.

    What is spent, what runs at its worst, and a new plan at its worst must fit in: else the plan is
    refused. From 80 % on there is a warning. Without --month and --off the budgets are shown.
    """
    if off and month_usd is not None:
        raise UsageError("--month and --off together", hint="give one of them")
    client = open_client()
    if month_usd is not None or off:
        client.set_budget(month_usd, project=project)
    standings = [each for each in client.budgets() if not project or each.project == project]
    if as_json:
        render.as_json([_shape(each) for each in standings])
        return
    if not standings:
        of = f" for project {project}" if project else ""
        render.say(f"no budget{of}; set one with: cloudrun config budget --month USD")
        return
    render.table(BUDGET_COLUMNS, [_row(each) for each in standings])
    for each in standings:
        if each.unpriced:
            render.say(f"not counted, because the price is unknown: {', '.join(each.unpriced)}")


def _row(standing: Standing) -> tuple[str, ...]:
    amounts = (standing.budget_usd, standing.spent_usd, standing.ahead_usd, standing.left_usd)
    return (standing.project or "all", standing.month, *(plain_money(amount) for amount in amounts))


def _shape(standing: Standing) -> dict[str, object]:
    return {
        "project": standing.project,
        "month": standing.month,
        "budget_usd": float(standing.budget_usd),
        "spent_usd": round(float(standing.spent_usd), 6),
        "ahead_usd": round(float(standing.ahead_usd), 6),
        "left_usd": round(float(standing.left_usd), 6),
        "unpriced": list(standing.unpriced),
    }
