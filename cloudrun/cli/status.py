"""status: the runs that go on and the newest that ended, or one run in detail."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import complete_run, json_option, open_client
from cloudrun.cli.run_view import RUN_COLUMNS, detail_lines, kept_text, machines_line, run_row, spent_text
from cloudrun.cli.shapes import run_shape
from cloudrun.client import Client
from cloudrun.models import Run

SHOWN = 20


@click.command(
    cls=Verb,
    examples=(
        "cloudrun status",
        "cloudrun status last",
        "cloudrun status --job svhn_rcnn --limit 100 --json",
    ),
)
@click.argument("run", required=False, default="", shell_complete=complete_run)
@click.option("--active", is_flag=True, help="Only runs that go on.")
@click.option("--job", default="", help="Only runs of this job.")
@click.option("--project", default="", help="Only runs of this project.")
@click.option(
    "-n", "--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="At most this many."
)
@json_option
def status(run: str, active: bool, job: str, project: str, limit: int, as_json: bool) -> None:
    """Show runs, or one run in detail.

    Runs that go on come first, then the newest. RUN is an id, its beginning, or `last`. The last
    line tells which machines are up, what they cost an hour, which ends when, and what was spent today
    and this month (UTC).
    """
    client = open_client()
    client.revive()
    if run:
        _show_one(client, client.run(run), as_json=as_json)
        return
    runs = _newest(client, active=active, job=job, project=project, limit=limit)
    if as_json:
        render.as_json([_shape(client, item) for item in runs])
        return
    _show_all(client, runs)


def _newest(client: Client, *, active: bool, job: str, project: str, limit: int) -> list[Run]:
    going_on = client.runs(job=job, project=project, active=True, limit=limit)
    if active:
        return going_on
    ids = {run.id for run in going_on}
    rest = [run for run in client.runs(job=job, project=project, limit=limit) if run.id not in ids]
    return (going_on + rest)[:limit]


def _show_all(client: Client, runs: list[Run]) -> None:
    now = datetime.now(UTC)
    if runs:
        render.table(RUN_COLUMNS, [run_row(run, now) for run in runs])
    else:
        render.say("no runs; start with: cloudrun init hello && cloudrun submit hello")
    up, kept = machines_line(client.machines(), now), kept_text(*client.kept_images_usd())
    render.say(up + kept + spent_text(*client.spent_usd()))


def _show_one(client: Client, run: Run, *, as_json: bool) -> None:
    if as_json:
        render.as_json({**_shape(client, run), "stack_lock": dict(client.stack_lock(run.id))})
        return
    outputs = client.files(run.id).outputs
    attempts, stages = client.attempts(run.id), client.stages(run.id)
    lock = client.stack_lock(run.id)
    render.lines(detail_lines(run, attempts, stages, outputs, datetime.now(UTC), lock=lock))


def _shape(client: Client, run: Run) -> dict[str, object]:
    return run_shape(run, attempts=len(client.attempts(run.id)))
