"""sim drill: a mishap played through, told as it happens, with a reckoning at the end."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import json_option
from cloudrun.cli.table import Column
from cloudrun.config import load_settings
from cloudrun.errors import MachineError
from cloudrun.sim.record import SimRecord, the_sim

if TYPE_CHECKING:
    from cloudrun.drills import Fact

COLUMNS = (Column("FACT", 0), Column("VALUE", 1), Column("VERDICT", 2))
NAMES = ("preempt", "no-capacity", "lost-client", "throttle")


@click.command(
    cls=Verb,
    examples=("cloudrun sim drill preempt", "cloudrun sim drill lost-client", "cloudrun sim drill all"),
)
@click.argument("name", type=click.Choice([*NAMES, "all"]))
@json_option
def drill(name: str, as_json: bool) -> None:
    """Play a mishap through and tell what was saved.

    A spot machine is taken in the middle of a run; the cheapest zones are full; the process that looks
    after a run is killed; every second call is refused. The exit code is 4 when something was not saved.
    """
    record = the_sim(load_settings().sim_dir)
    os.environ.update(record.environment())  # from here on this process talks to the rehearsal alone
    names = NAMES if name == "all" else (name,)
    facts = {each: _play(each, record, quiet=as_json) for each in names}
    if as_json:
        render.as_json({each: [asdict(fact) for fact in found] for each, found in facts.items()})
    wrong = [fact.name for found in facts.values() for fact in found if not fact.ok]
    if wrong:
        raise MachineError(f"not as it should be: {', '.join(wrong)}", hint="cloudrun sim status")


def _play(name: str, record: SimRecord, *, quiet: bool) -> list[Fact]:
    """Tell the story as it happens; its reckoning comes as a table, or is left to the caller."""
    from cloudrun.client import Client
    from cloudrun.drills import DRILLS, Fact

    render.say(f"drill: {name}")
    facts: list[Fact] = []
    for item in DRILLS[name](Client(), record):
        if isinstance(item, Fact):
            facts.append(item)
        else:
            render.say(f"  {item.text}")
    if not quiet:
        render.table(COLUMNS, [(fact.name, fact.value, "ok" if fact.ok else "WRONG") for fact in facts])
    return facts
