"""Clean-up of what ended runs left on machines that stay: the choice is that of home, and it is for good.

One command for each machine tells what lies on it, one more deletes. Killed at any point, plan and clean
again. What never goes is what never goes at home; the checkpoint of a run that ended too early stays on its
machine whatever there is of it at home, since the machine's may be the newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime

from cloudrun.attempts import key_of
from cloudrun.catalog import disk_rule
from cloudrun.cleaning import (
    Choice,
    Cleaned,
    Cleanup,
    Going,
    can_resume,
    choose,
    cleanup_elsewhere,
    is_large,
    is_pinned,
)
from cloudrun.context import Context
from cloudrun.errors import CloudrunError, Refused
from cloudrun.events import Note, Progress
from cloudrun.models import Machine, MachineState
from cloudrun.remote import process
from cloudrun.store_clean import RunIndex, RunRow

MOST_AT_ONCE = 8  # machines
ASKED_AT_ONCE = 500  # runs in one question to the store

Found = dict[str, tuple[int, int]]  # bytes and files by the attempt's name on the machine


def plan_cleanup(ctx: Context, choice: Choice, *, name: str = "", now: datetime) -> Cleanup:
    """What would go from that machine; without a name from every one that runs. Changes nothing. A machine
    that does not answer is named in a note; one that was asked for by name raises what it says."""
    there = _running(ctx, name)
    with RunIndex(ctx.settings.store_path) as index:
        known = index.rows()
        attempts = {machine.name: index.attempts_on(machine.name) for machine in there}
    on_them = {run for runs in attempts.values() for run in runs}
    chosen = choose(ctx.settings, [row for row in known if row.id in on_them], choice, now=now)

    def look(machine: Machine) -> list[Going]:
        keys = {
            key_of(row.id, number): row
            for row in chosen.runs
            for number in attempts[machine.name].get(row.id, ())
        }
        found = _ask(ctx, machine, choice, keys, remove=False)
        return [each for each in _by_run(machine, keys, found) if is_large(each, choice)]

    going = _on_each(ctx, there, look, strict=bool(name))
    remarks = disk_remarks(there, {each.machine for each in going})
    return cleanup_elsewhere(ctx.settings, choice, chosen, going, remarks)


def clean(ctx: Context, cleanup: Cleanup) -> Cleaned:
    """Delete it (blocking). What changed since it was planned stays, and what a machine cannot delete."""
    same = _unchanged(ctx, [each.run for each in cleanup.runs])
    still = [
        each for each in cleanup.runs if each.run.id in same and not is_pinned(ctx.settings, each.run.id)
    ]
    there = [machine for machine in _running(ctx, "") if machine.name in {each.machine for each in still}]

    def sweep(machine: Machine) -> list[Going]:
        keys = {key: each.run for each in still if each.machine == machine.name for key in each.paths}
        return _by_run(machine, keys, _ask(ctx, machine, cleanup.choice, keys, remove=True))

    gone = _on_each(ctx, there, sweep, strict=False)
    size = sum(each.size_bytes for each in gone)
    ctx.on_event(Progress("clean", size, size))
    return Cleaned(len(gone), size, skipped=len(cleanup.runs) - len(gone))


def _running(ctx: Context, name: str) -> list[Machine]:
    found = [machine for machine in ctx.store.list_machines() if machine.state is MachineState.RUNNING]
    if not name:
        return found
    named = [machine for machine in found if machine.name == name]
    if not named:
        raise Refused(f"{name} does not run", hint=f"cloudrun machines start {name}")
    return named


def _on_each(
    ctx: Context, machines: Sequence[Machine], work: Callable[[Machine], list[Going]], *, strict: bool
) -> list[Going]:
    """Machines side by side. One that fails leaves the others alone; strict: it raises."""

    def tried(machine: Machine) -> list[Going] | CloudrunError:
        try:
            return work(machine)
        except CloudrunError as error:
            return error

    going: list[Going] = []
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        for machine, found in zip(machines, pool.map(tried, machines), strict=True):
            if not isinstance(found, CloudrunError):
                going += found
            elif strict:
                raise found
            else:
                ctx.on_event(Note(f"{machine.name} was left out: {found.message}"))
    return going


def disk_remarks(machines: Sequence[Machine], cleaned: set[str]) -> tuple[str, ...]:
    """Clouds bill a disk by its size: freeing a part of one saves nothing."""
    costs = [(each, disk_rule(each.provider)) for each in machines if each.name in cleaned and each.disk_gb]
    return tuple(
        f"the disk of {each.name} goes on costing {rule.price_usd * each.disk_gb:.2f} USD a month: "
        f"it is billed by its {each.disk_gb} GB"
        for each, rule in costs
        if rule and rule.price_usd is not None
    )


def _ask(ctx: Context, machine: Machine, choice: Choice, keys: dict[str, RunRow], *, remove: bool) -> Found:
    if not keys:
        return {}
    runs = [(key, can_resume(row)) for key, row in keys.items()]
    part = choice.only.value if choice.only else ""
    with closing(ctx.connect(machine)) as shell:
        return process.clean_runs(shell, runs, part=part, remove=remove)


def _by_run(machine: Machine, keys: dict[str, RunRow], found: Found) -> list[Going]:
    """What the machine said, run by run; keys that nobody asked for are not believed."""
    by_run: dict[RunRow, list[str]] = {}
    for key in found:
        if key in keys:
            by_run.setdefault(keys[key], []).append(key)
    return [
        Going(
            row,
            tuple(names),
            sum(found[key][0] for key in names),
            sum(found[key][1] for key in names),
            machine.name,
        )
        for row, names in by_run.items()
    ]


def _unchanged(ctx: Context, rows: Sequence[RunRow]) -> set[str]:
    with RunIndex(ctx.settings.store_path) as index:
        return {
            run
            for first in range(0, len(rows), ASKED_AT_ONCE)
            for run in index.unchanged(rows[first : first + ASKED_AT_ONCE])
        }
