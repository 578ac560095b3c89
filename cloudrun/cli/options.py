"""Options and completions that several commands share, and how a command gets its Client."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cloudrun.cli import render
from cloudrun.cli.text import visible
from cloudrun.errors import CloudrunError, Interrupted, UsageError
from cloudrun.models import Market

if TYPE_CHECKING:
    from cloudrun.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])
COMPLETED_RUNS = 50
_WARNS = "cloudrun.warns"  # in the meta of the command line: the warning is arranged


def open_client() -> Client:
    """The one way of the commands to everything else; imported here, so that --help stays fast."""
    from cloudrun.client import Client

    client = Client()
    _warn_at_the_end(client)
    return client


def _warn_at_the_end(client: Client) -> None:
    """Once, when the command is over, however it ends: what runs and costs with nobody to end it."""
    context = click.get_current_context(silent=True)
    if context is None or context.resilient_parsing or context.find_root().meta.get(_WARNS):
        return
    context.find_root().meta[_WARNS] = True
    context.find_root().call_on_close(lambda: _warn_unguarded(client))


def _warn_unguarded(client: Client) -> None:
    try:
        names = [machine.name for machine in client.unguarded()]
    except (CloudrunError, OSError):  # the command itself has met it, and says so
        return
    if names:
        render.say(
            f"warning: nothing but you ends {visible(', '.join(names))}: cloudrun terminate {names[0]}"
        )


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON; fields never change names.")(
        command
    )


def yes_option(command: Command) -> Command:
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


def dry_run_option(command: Command) -> Command:
    return click.option("--dry-run", is_flag=True, help="Show what would be done, and stop.")(command)


def market_option(command: Command) -> Command:
    """--spot or --on-demand, as `market`."""
    spot = click.option("--spot", "market", flag_value="spot", callback=_to_market, help="At the spot price.")
    on_demand = click.option(
        "--on-demand", "market", flag_value="on-demand", callback=_to_market, help="At the fixed price."
    )
    return spot(on_demand(command))


def region_option(command: Command) -> Command:
    return click.option("--region", "regions", multiple=True, help="Only in this region. Repeatable.")(
        command
    )


def run_argument(command: Command) -> Command:
    return click.argument("run", shell_complete=complete_run)(command)


def machine_argument(command: Command) -> Command:
    return click.argument("name", shell_complete=complete_machine)(command)


def complete_run(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the newest runs, and `last`; silent where the store cannot be read."""
    try:
        ids = [run.id for run in open_client().runs(limit=COMPLETED_RUNS)]
    except Exception:  # a completion must never disturb the line that is being typed
        return []
    return [name for name in ["last", *ids] if name.startswith(incomplete)]


def complete_machine(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of live machines, from the store alone."""
    try:
        names = [machine.name for machine in open_client().store.list_machines()]
    except Exception:  # as above
        return []
    return [name for name in names if name.startswith(incomplete)]


def to_usd(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Decimal | None:
    """Callback of an amount of US dollars."""
    if value is None:
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount <= 0:
        raise click.BadParameter(f"{value!r} is no amount of US dollars, e.g. 2.50")
    return amount


def to_pairs(
    _ctx: click.Context, _param: click.Parameter, values: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Callback of repeated KEY=VALUE."""
    pairs = [value.partition("=") for value in values]
    for (key, equals, _), value in zip(pairs, values, strict=True):
        if not key or not equals:
            raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE")
    return tuple((key, text) for key, _, text in pairs)


def _to_market(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Market | None:
    return Market(value) if value else None


def read_secrets(names: Sequence[str]) -> dict[str, str]:
    """The values of these variables of this environment: they never stand in an argument or a file."""
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise UsageError(
            f"no variable {missing[0]} in this environment",
            hint=f"set it first, out of the shell's history: read -rs {missing[0]} && export {missing[0]}",
        )
    return {name: os.environ[name] for name in names}


def confirm(question: str, *, yes: bool, harmless: bool = False) -> None:
    """Ask before going on; `harmless` goes on unasked where there is nobody to ask (no terminal).

    Raises UsageError where somebody had to be asked and nobody is there, Interrupted on a no.
    """
    from cloudrun.config import load_settings

    if yes or (harmless and not render.interactive()) or load_settings().sim is not None:
        return  # a rehearsal spends nothing
    if not render.interactive():
        raise UsageError(
            "this needs a yes, and there is no terminal to ask", hint="add -y, or look first with --dry-run"
        )
    if not render.ask(question):
        raise Interrupted("not confirmed: nothing was done")
