"""clean and pin: get rid of what runs left at home, on machines and in buckets, and keep it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from cloudrun.cli import render
from cloudrun.cli.clean_view import SHOWN, cleanup_shape, data_cleanup_shape, show, show_data
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
from cloudrun.cli.text import home_relative, plural, size
from cloudrun.cli.watch import Watcher
from cloudrun.errors import UsageError
from cloudrun.models import FINAL_RUN_STATES, RunState

if TYPE_CHECKING:
    from cloudrun.cleaning import Choice, Cleaned, Cleanup
    from cloudrun.client import Client

ALL = "all"  # machines that run; buckets that are known
BACK = "back with: cloudrun clean --undo; the disk is free after: cloudrun clean --empty-trash"
EMPTY = "the trash is empty"
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
        "cloudrun clean --in s3://my-results/svhn --keep-last 3",
        "cloudrun clean --datasets unused --dry-run",
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
@click.option(
    "--in",
    "bucket",
    default="",
    metavar="URL|all",
    help="What lies in that bucket (s3://, az://), or in all that are known, instead; gone for good.",
)
@click.option(
    "--datasets",
    type=click.Choice(["unused"]),
    help="The versions of datasets that no run was given, instead.",
)
@click.option("--undo", is_flag=True, help="Put back what the last clean-up took.")
@click.option("--empty-trash", is_flag=True, help="Delete for good what clean-ups took.")
@dry_run_option
@yes_option
@json_option
def clean(
    on: str,
    bucket: str,
    datasets: str | None,
    undo: bool,
    empty_trash: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Get rid of what finished runs left on this computer.

    Without options: everything of every run that has ended. It goes into a trash, from which --undo brings
    it back. Runs that go on, pinned runs (`cloudrun pin`), and the checkpoint of a run that `restart`
    can go on with always stay; so do the runs' lines in `status` and in the costs.

    With --on or --in nothing here is touched, and nothing comes back: machines and buckets have no trash.
    Machines that are switched off are left out, and so is what is in a bucket and of no run known here.

    --datasets unused takes datasets instead of runs, into the trash; --older-than and --larger-than
    narrow it.
    """
    client = open_client()
    alone = [name for name, value in (("--on", on), ("--in", bucket), ("--datasets", datasets)) if value]
    if len(alone) > 1:
        raise UsageError(f"{' and '.join(alone)} cannot go together", hint="one place at a time")
    if undo or empty_trash:
        if (undo and empty_trash) or alone or any(given.values()):
            raise UsageError("--undo and --empty-trash stand alone", hint="cloudrun clean --help")
        _undo(client) if undo else _empty(client, dry_run=dry_run, yes=yes)
    elif datasets:
        _clean_data(client, given, dry_run=dry_run, yes=yes, as_json=as_json)
    else:
        where = _Where(client, on, bucket)
        _clean_runs(where, _choice(**given), dry_run=dry_run, yes=yes, as_json=as_json)


@click.command(cls=Verb, examples=("cloudrun pin last", "cloudrun pin 8f3k --off"))
@run_argument
@click.option("--off", is_flag=True, help="Let clean-ups take it again.")
def pin(run: str, off: bool) -> None:
    """Keep a run from every clean-up."""
    found = open_client().pin(run, pinned=not off)
    render.say(f"{found.id} is no longer pinned" if off else f"{found.id} is pinned: no clean-up takes it")


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


@dataclass(frozen=True, slots=True)
class _Where:
    """Where runs are cleaned: here, on a machine, or in a bucket."""

    client: Client
    on: str
    bucket: str

    @property
    def here(self) -> bool:
        return not (self.on or self.bucket)

    def plan(self, choice: Choice) -> Cleanup:
        if self.on:
            name = "" if self.on == ALL else self.on
            return self.client.plan_machine_cleanup(choice, on=name, on_event=Watcher())
        if self.bucket:
            address = "" if self.bucket == ALL else self.bucket
            return self.client.plan_bucket_cleanup(choice, address=address, on_event=Watcher())
        return self.client.plan_cleanup(choice)

    def clean(self, cleanup: Cleanup) -> Cleaned:
        if self.on:
            return self.client.clean_machines(cleanup, on_event=Watcher())
        if self.bucket:
            return self.client.clean_buckets(cleanup, on_event=Watcher())
        return self.client.clean(cleanup, on_event=Watcher())


def _clean_runs(where: _Where, choice: Choice, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    cleanup = where.plan(choice)
    if not as_json:
        show(cleanup)
    done = None
    if (cleanup.runs or cleanup.code) and not dry_run:
        amount = size(cleanup.size_bytes)
        confirm(
            f"Move {amount} into the trash?" if where.here else f"Delete {amount} there for good?", yes=yes
        )
        done = where.clean(cleanup)
    if as_json:
        render.as_json(cleanup_shape(cleanup, done))
    if done:
        gone = "moved into the trash" if where.here else "deleted"
        render.say(f"{plural(done.runs, 'run')}, {size(done.size_bytes)} {gone}")
        if done.skipped:
            render.say(f"{plural(done.skipped, 'run')} left alone: in use, pinned or changed meanwhile")
        if where.here:
            render.say(BACK)


def _clean_data(client: Client, given: Mapping[str, Any], *, dry_run: bool, yes: bool, as_json: bool) -> None:
    older_than, larger_than = given["older_than"], given["larger_than"]
    if any(value for name, value in given.items() if name not in ("older_than", "larger_than")):
        raise UsageError("--datasets takes --older-than and --larger-than only", hint="cloudrun clean --help")
    cleanup = client.plan_data_cleanup(older_than=older_than, larger_than_bytes=larger_than)
    if not as_json:
        show_data(cleanup)
    done = None
    if (cleanup.datasets or cleanup.size_bytes) and not dry_run:
        confirm(f"Move {size(cleanup.size_bytes)} into the trash?", yes=yes)
        done = client.clean_data(cleanup)
    if as_json:
        render.as_json(data_cleanup_shape(cleanup, done))
    if done:
        render.say(f"{plural(done[0], 'version')}, {size(done[1])} moved into the trash")
        render.say(BACK)


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
    if dry_run or not yes:  # measuring takes as long as deleting
        count, files = client.trash_size()
        render.say(f"the trash holds {plural(files, 'file')}, {size(count)}" if files else EMPTY)
        if dry_run or not files:
            return
        confirm("Delete them for good?", yes=yes)
    count, files = client.empty_trash()
    render.say(f"{plural(files, 'file')}, {size(count)} freed" if files else EMPTY)
