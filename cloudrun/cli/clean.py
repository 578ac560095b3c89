"""clean and pin: get rid of what runs left at home and on machines, and keep it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import (
    complete_machine,
    confirm,
    dry_run_option,
    json_option,
    open_client,
    run_argument,
    yes_option,
)
from cloudrun.cli.shapes import Shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import home_relative, plural, size
from cloudrun.cli.watch import Watcher
from cloudrun.errors import UsageError
from cloudrun.models import FINAL_RUN_STATES, RunState

if TYPE_CHECKING:
    from cloudrun.cleaning import Choice, Cleaned, Cleanup, Going
    from cloudrun.client import Client

ALL = "all"  # the machines that run
SHOWN = 20  # the largest runs; --json has all
COLUMNS = (
    Column("RUN", 0),
    Column("JOB", 2, least=8),
    Column("STATE", 3),
    Column("ENDED", 4),
    Column("MACHINE", 5, least=8, optional=True),
    Column("WHAT", 5, least=10, optional=True),
    Column("FILES", 6, right=True),
    Column("SIZE", 1, right=True),
)
SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}  # powers of 1000, as sizes are shown

Command = Callable[..., Any]


def to_age(_ctx: click.Context, _param: click.Parameter, value: str | None) -> timedelta | None:
    """Callback of an age: 90m, 12h, 30d, 2w."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([mhdw])", value.strip().lower())
    if not found:
        raise click.BadParameter(f"{value!r} is no age, e.g. 12h, 30d, 2w")
    return timedelta(seconds=int(found[1]) * SECONDS[found[2]])


def to_bytes(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int:
    """Callback of a size: 500MB, 1.5 GB; 0 without one."""
    if value is None:
        return 0
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMGT]?)B?", value.strip().upper())
    if not found:
        raise click.BadParameter(f"{value!r} is no size, e.g. 500MB, 1GB")
    return round(float(found[1]) * BYTES[found[2]])


def choice_options(command: Command) -> Command:
    """Which runs, and what of them."""
    states = sorted(state.value for state in FINAL_RUN_STATES)
    for option in reversed(
        (
            click.option("--project", default="", help="Only runs of this project."),
            click.option("--job", default="", help="Only runs of this job."),
            click.option(
                "--status",
                multiple=True,
                type=click.Choice(states),
                help="Only those that ended so. Repeatable.",
            ),
            click.option(
                "--older-than",
                metavar="AGE",
                callback=to_age,
                help="Only those that ended longer ago: 12h, 30d, 2w.",
            ),
            click.option(
                "--keep-last",
                type=click.IntRange(0),
                default=0,
                metavar="N",
                help="Of these keep the newest N of each job.",
            ),
            click.option(
                "--keep-best",
                default="",
                metavar="METRIC",
                help="Of these keep the best of each job, as its job.toml says what is better.",
            ),
            click.option(
                "--larger-than",
                metavar="SIZE",
                callback=to_bytes,
                help="Only where more would go: 500MB, 1GB.",
            ),
            click.option(
                "--only",
                type=click.Choice(["checkpoints", "outputs", "code"]),
                default=None,
                help="Only this part of each run; without it all its files.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(
    cls=Verb,
    examples=(
        "cloudrun clean --older-than 30d --keep-best val_accuracy --dry-run",
        "cloudrun clean --project svhn --status failed -y",
        "cloudrun clean --only checkpoints --larger-than 1GB",
        "cloudrun clean --on k80 --older-than 7d",
        "cloudrun clean --undo",
    ),
)
@choice_options
@click.option(
    "--on",
    default="",
    metavar="MACHINE|all",
    shell_complete=complete_machine,
    help="What lies on that machine, or on all that run, instead of what is here; gone for good.",
)
@click.option("--undo", is_flag=True, help="Put back what the last clean-up took.")
@click.option("--empty-trash", is_flag=True, help="Delete for good what clean-ups took.")
@dry_run_option
@yes_option
@json_option
def clean(
    on: str, undo: bool, empty_trash: bool, dry_run: bool, yes: bool, as_json: bool, **given: Any
) -> None:
    """Get rid of what finished runs left on this computer.

    Without options: everything of every run that has ended. It goes into a trash, from which --undo brings
    it back. Runs that go on, pinned runs (`cloudrun pin`), and the checkpoint of a run that `restart`
    can go on with always stay; so do the runs' lines in `status` and in the costs.

    With --on nothing here is touched, and nothing comes back: machines have no trash. Machines that are
    switched off are left out.
    """
    client = open_client()
    if undo or empty_trash:
        if (undo and empty_trash) or on or any(given.values()):
            raise UsageError("--undo and --empty-trash stand alone", hint="cloudrun clean --help")
        _undo(client) if undo else _empty(client, dry_run=dry_run, yes=yes)
        return
    cleanup = _plan(client, _choice(**given), on)
    going = bool(cleanup.runs or cleanup.code)
    if not as_json:
        _show(cleanup)
    done = None
    if going and not dry_run:
        done = _clean(client, cleanup, on, yes=yes)
    if as_json:
        render.as_json(cleanup_shape(cleanup, done))
    if done:
        _report(done, on)


@click.command(cls=Verb, examples=("cloudrun pin last", "cloudrun pin 8f3k --off"))
@run_argument
@click.option("--off", is_flag=True, help="Let clean-ups take it again.")
def pin(run: str, off: bool) -> None:
    """Keep a run from every clean-up."""
    found = open_client().pin(run, pinned=not off)
    render.say(f"{found.id} is no longer pinned" if off else f"{found.id} is pinned: no clean-up takes it")


def cleanup_shape(cleanup: Cleanup, done: Cleaned | None) -> Shape:
    return {
        "runs": [_run_shape(going) for going in cleanup.runs],
        "code": {"files": len(cleanup.code), "size_bytes": sum(count for _, count in cleanup.code)},
        "size_bytes": cleanup.size_bytes,
        "kept": {
            "active": cleanup.active,
            "pinned": cleanup.pinned,
            "last_or_best": cleanup.ranked,
            "resumable": cleanup.resumable,
        },
        "only_copies": cleanup.only_copies,
        "cleaned": done
        and {"runs": done.runs, "code": done.code, "size_bytes": done.size_bytes, "skipped": done.skipped},
    }


def _run_shape(going: Going) -> Shape:
    return {
        "id": going.run.id,
        "job": going.run.job,
        "project": going.run.project,
        "state": going.run.state,
        "ended_at": going.run.ended_at,
        "machine": going.machine,
        "paths": list(going.paths),
        "files": going.files,
        "size_bytes": going.size_bytes,
    }


def _choice(
    *,
    project: str,
    job: str,
    status: Sequence[str],
    older_than: timedelta | None,
    keep_last: int,
    keep_best: str,
    larger_than: int,
    only: str | None,
) -> Choice:
    from cloudrun.cleaning import Choice, Part

    return Choice(
        project=project,
        job=job,
        states=frozenset(map(RunState, status)),
        older_than=older_than,
        keep_last=keep_last,
        keep_best=keep_best,
        larger_than_bytes=larger_than,
        only=Part(only) if only else None,
    )


def _plan(client: Client, choice: Choice, on: str) -> Cleanup:
    if not on:
        return client.plan_cleanup(choice)
    return client.plan_machine_cleanup(choice, on="" if on == ALL else on, on_event=Watcher())


def _clean(client: Client, cleanup: Cleanup, on: str, *, yes: bool) -> Cleaned:
    if not on:
        confirm(f"Move {size(cleanup.size_bytes)} into the trash?", yes=yes)
        return client.clean(cleanup, on_event=Watcher())
    confirm(f"Delete {size(cleanup.size_bytes)} there for good?", yes=yes)
    return client.clean_machines(cleanup, on_event=Watcher())


def _show(cleanup: Cleanup) -> None:
    if cleanup.runs:
        render.table(COLUMNS, [_row(going) for going in cleanup.runs[:SHOWN]])
    rest = cleanup.runs[SHOWN:]
    if rest:
        more = sum(going.size_bytes for going in rest)
        render.say(f"... and {plural(len(rest), 'smaller one')} with {size(more)}; --json lists all")
    code = sum(count for _, count in cleanup.code)
    if cleanup.code:
        render.say(f"code that no run needs any more: {plural(len(cleanup.code), 'file')}, {size(code)}")
    if cleanup.runs or cleanup.code:
        render.say(f"{plural(len(cleanup.runs), 'run')}, {size(cleanup.size_bytes)} would go")
    else:
        render.say("there is nothing to clean")
    if cleanup.only_copies:
        render.say(f"the outputs of {plural(cleanup.only_copies, 'run')} are nowhere but there")
    reasons = _reasons(cleanup)
    if reasons:
        render.say(f"stays: {', '.join(reasons)}")


def _row(going: Going) -> tuple[str, ...]:
    what = "" if going.machine or going.paths == ("",) else ", ".join(going.paths)
    return (
        going.run.id,
        going.run.job,
        going.run.state,
        going.run.since[:10],
        going.machine,
        what,
        f"{going.files:,}",
        size(going.size_bytes),
    )


def _reasons(cleanup: Cleanup) -> list[str]:
    """`2 active runs, 1 pinned run, the checkpoints of 3 unfinished runs`"""
    counted = ((cleanup.active, "active"), (cleanup.pinned, "pinned"), (cleanup.ranked, "last or best"))
    found = [plural(count, f"{word} run") for count, word in counted if count]
    if cleanup.resumable:
        found.append(f"the checkpoints of {plural(cleanup.resumable, 'unfinished run')}")
    return found


def _report(done: Cleaned, on: str) -> None:
    gone = "deleted" if on else "moved into the trash"
    render.say(f"{plural(done.runs, 'run')}, {size(done.size_bytes)} {gone}")
    if done.skipped:
        render.say(f"{plural(done.skipped, 'run')} left alone: in use, pinned or changed meanwhile")
    if not on:
        render.say("back with: cloudrun clean --undo; the disk is free after: cloudrun clean --empty-trash")


def _undo(client: Client) -> None:
    folder, left = client.undo_clean()
    when = folder.name.partition("-")[2]
    render.say(f"what the clean-up of {when} took is back in its place")
    if left:
        render.say(
            f"{plural(len(left), 'path')} stayed in {home_relative(str(folder))}: their places are taken"
        )
        render.lines(left[:SHOWN])


def _empty(client: Client, *, dry_run: bool, yes: bool) -> None:
    count, files = client.trash_size()
    if not files:
        render.say("the trash is empty")
    else:
        render.say(f"the trash holds {plural(files, 'file')}, {size(count)}")
    if dry_run or not files:
        return
    confirm("Delete them for good?", yes=yes)
    client.empty_trash()
    render.say(f"{size(count)} freed")
