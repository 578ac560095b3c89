"""Commands on one run: logs, attach, cancel, restart, clone."""

from __future__ import annotations

from pathlib import Path

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.logtext import LogText
from cloudrun.cli.options import (
    confirm,
    dry_run_option,
    json_option,
    open_client,
    read_secrets,
    run_argument,
    yes_option,
)
from cloudrun.cli.shapes import run_shape
from cloudrun.cli.text import home_relative
from cloudrun.cli.walk import interrupted, walk
from cloudrun.errors import Refused


@click.command(
    cls=Verb, examples=("cloudrun logs last", "cloudrun logs -f 8f3k", "cloudrun logs last --raw > log")
)
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--raw", is_flag=True, help="Bytes as the job wrote them, with escape sequences.")
def logs(run: str, follow: bool, raw: bool) -> None:
    """Show what a run printed.

    All attempts, oldest first. Control sequences are left out unless --raw is given.
    """
    client = open_client()
    found = client.run(run)
    text = LogText()
    try:
        for chunk in client.logs(found.id, follow=follow):
            render.content(chunk) if raw else render.log(text.feed(chunk))
    except KeyboardInterrupt:
        raise interrupted(client.run(found.id)) from None
    render.log(text.close())


@click.command(cls=Verb, examples=("cloudrun attach last",))
@run_argument
@json_option
def attach(run: str, as_json: bool) -> int:
    """Come back to a run and watch it to its end.

    Its log so far comes first. When no process walks the run any more, this one does. Ctrl-C
    stops the watching, not the run.
    """
    client = open_client()
    found = client.run(run)
    return walk(
        client, lambda watcher: client.attach(found.id, on_event=watcher), known=found, as_json=as_json
    )


@click.command(cls=Verb, examples=("cloudrun cancel 8f3k", "cloudrun cancel last -y"))
@run_argument
@dry_run_option
@yes_option
@json_option
def cancel(run: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """End a run early; what it saved is kept.

    The job gets SIGTERM and time to save, then SIGKILL. Its outputs so far come home, and a
    machine that was rented for it is let go.
    """
    client = open_client()
    found = client.run(run)
    if found.state.final:
        raise Refused(f"{found.id} has ended: {found.state.value}", hint=f"cloudrun status {found.id}")
    saved = "restart goes on from its checkpoint" if found.resume else "it saves no checkpoint"
    place = found.machine or "no machine yet"
    render.say(f"cancels {found.id} ({found.job}, {found.state.value} on {place}); {saved}")
    if dry_run:
        return
    confirm(f"Cancel {found.id}?", yes=yes, harmless=found.resume)
    ended = client.cancel(found.id)
    if as_json:
        render.as_json(run_shape(ended, attempts=len(client.attempts(ended.id))))
        return
    render.say(f"{ended.id} is {ended.state.value}; cloudrun restart {ended.id} goes on from where it was")


@click.command(cls=Verb, examples=("cloudrun restart last", "cloudrun restart 8f3k --detach"))
@run_argument
@click.option("-d", "--detach", is_flag=True, help="Return at once; a supervisor walks on.")
@click.option(
    "--secret",
    "secret_names",
    multiple=True,
    metavar="NAME",
    help="A secret that the run was submitted with, taken from here again.",
)
@json_option
def restart(run: str, detach: bool, secret_names: tuple[str, ...], as_json: bool) -> int:
    """Run again from the last checkpoint.

    The same code, arguments and run id, as a further attempt. A job that writes no checkpoint
    begins anew. Secrets are never stored, so name them again.
    """
    secrets = read_secrets(secret_names)
    client = open_client()
    found = client.run(run)
    return walk(
        client,
        lambda watcher: client.restart(found.id, detach=detach, secrets=secrets, on_event=watcher),
        known=found,
        as_json=as_json,
    )


@click.command(cls=Verb, examples=("cloudrun clone last", "cloudrun clone 8f3k again"))
@run_argument
@click.argument("folder", required=False, default="", type=click.Path(file_okay=False))
def clone(run: str, folder: str) -> None:
    """Write a run's code, as it ran, into a folder.

    FOLDER must not exist yet or be empty; without it JOB-RUN in the current folder. It is a whole job folder:
    `cloudrun submit FOLDER` runs it again.
    """
    client = open_client()
    found = client.run(run)
    where = client.clone(found.id, Path(folder or f"{found.job}-{found.id}"))
    render.data(str(where))
    render.say(f"the code of {found.id}; run it with: cloudrun submit {home_relative(str(where))}")
