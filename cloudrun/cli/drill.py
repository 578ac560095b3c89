"""sim drill: a mishap played through, told as it happens, with a reckoning at the end."""

from __future__ import annotations

import os

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import json_option
from cloudrun.cli.table import Column
from cloudrun.config import load_settings
from cloudrun.errors import MachineError
from cloudrun.sim.record import the_sim

COLUMNS = (Column("", 0), Column("FACT", 1), Column("VALUE", 2))
NAMES = ("preempt", "no-capacity", "lost-client", "throttle")


@click.command(
    cls=Verb,
    examples=("cloudrun sim drill preempt", "cloudrun sim drill lost-client", "cloudrun sim drill all"),
)
@click.argument("name", type=click.Choice([*NAMES, "all"]))
@json_option
def drill(name: str, as_json: bool) -> None:
    """Play a mishap through and tell what was saved.

    preempt: a spot machine is taken in the middle of a run. no-capacity: the cheapest zones are full.
    lost-client: the process that looked after a run is killed, and a machine is left alone. throttle:
    every second call is refused. The exit code is 4 when something was not saved.
    """
    record = the_sim(load_settings().sim_dir)
    os.environ.update(record.environment())  # from here on this process talks to the rehearsal alone
    from cloudrun.client import Client
    from cloudrun.drills import DRILLS, Fact

    facts: dict[str, list[Fact]] = {}
    for each in NAMES if name == "all" else (name,):
        render.say(f"drill: {each}")
        found = facts.setdefault(each, [])
        for item in DRILLS[each](Client(), record):
            if isinstance(item, Fact):
                found.append(item)
            else:
                render.say(f"  {item.text}")
        if not as_json:
            width = max(len(fact.name) for fact in found)
            render.lines(
                [f"{'ok   ' if fact.ok else 'WRONG'} {fact.name:<{width}}  {fact.value}" for fact in found]
            )
    if as_json:
        render.as_json(
            {
                each: [{"name": f.name, "value": f.value, "ok": f.ok} for f in found]
                for each, found in facts.items()
            }
        )
    wrong = [fact.name for found in facts.values() for fact in found if not fact.ok]
    if wrong:
        raise MachineError(f"not as it should be: {', '.join(wrong)}", hint="cloudrun sim status")
