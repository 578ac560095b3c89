"""outputs: list, get, pull, open what runs wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Entry, LazyGroup, Verb
from cloudrun.cli.options import json_option, open_client, run_argument
from cloudrun.cli.shapes import output_shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import home_relative, plural, size
from cloudrun.cli.watch import Watcher
from cloudrun.client import Client
from cloudrun.errors import CloudrunError, NotFound
from cloudrun.models import BundleFile

COLUMNS = (Column("SIZE", 1, right=True), Column("PATH", 0))
PLACED = (Column("SIZE", 1, right=True), Column("WHERE", 2), Column("PATH", 0))

outputs = LazyGroup(
    "outputs",
    help="List, fetch and open what runs wrote.\n\n"
    "Outputs come home by themselves at the end of a run, and checkpoints now and then before.",
    sections={
        "Commands": (
            Entry("list", "cloudrun.cli.outputs:list_outputs", "Show a run's outputs."),
            Entry("get", "cloudrun.cli.outputs:get", "Fetch one file or folder."),
            Entry("pull", "cloudrun.cli.outputs:pull", "Bring all outputs home, or into a folder."),
            Entry("push", "cloudrun.cli.outputs:push", "Store outputs in the run's bucket."),
            Entry("open", "cloudrun.cli.outputs:open_outputs", "Open a run's outputs on the desktop."),
        )
    },
    examples=("cloudrun outputs list last", "cloudrun outputs pull last --to results"),
)


@click.command("list", cls=Verb, examples=("cloudrun outputs list last", "cloudrun outputs list 8f3k --json"))
@run_argument
@json_option
def list_outputs(run: str, as_json: bool) -> None:
    """Show a run's outputs.

    What is at home now, and what its bucket has; `outputs pull` fetches the newest of a run that goes on.
    """
    client = open_client()
    files, where = _placed(client, run)
    if as_json:
        render.as_json([{**output_shape(file), "where": where[file.path]} for file in files])
        return
    rows = [(size(file.size), file.path + (f" -> {file.link}" if file.link else "")) for file in files]
    if files and client.outputs_place(run):
        places = (" ".join(where[file.path]) for file in files)
        render.table(PLACED, [(row[0], place, row[1]) for row, place in zip(rows, places, strict=True)])
    elif files:
        render.table(COLUMNS, rows)
    total = sum(file.size for file in files)
    at_home = not files or any("home" in places for places in where.values())
    place = home_relative(str(client.files(run).outputs)) if at_home else client.outputs_place(run)
    render.say(f"{plural(len(files), 'file')}, {size(total)}, in {place}")


@click.command(
    cls=Verb,
    examples=(
        "cloudrun outputs get last curves.png",
        "cloudrun outputs get last metrics.jsonl --to - | tail -1",
    ),
)
@run_argument
@click.argument("path")
@click.option(
    "--to", default="", help="File or folder to write; - is stdout. Without it, the current folder."
)
def get(run: str, path: str, to: str) -> None:
    """Fetch one file or folder.

    PATH is as `outputs list` shows it.
    """
    client = open_client()
    found = client.run(run).id
    source = _find(client, found, path)
    if to == "-":
        render.content(source.read_bytes())
        return
    target = Path(to or ".")
    target = target / source.name if target.is_dir() else target
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    render.data(str(target))


@click.command(cls=Verb, examples=("cloudrun outputs pull last", "cloudrun outputs pull 8f3k --to results"))
@run_argument
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Also write them into this folder.",
)
def pull(run: str, to: Path | None) -> None:
    """Bring all outputs home, or into a folder.

    Only what changed travels, and every file is checked against its hash. Prints the folder.
    """
    client = open_client()
    found = client.run(run).id
    folder = client.pull_outputs(found, to=to, on_event=Watcher())
    files = client.outputs(found)
    render.data(str(folder))
    render.say(f"{plural(len(files), 'file')}, {size(sum(file.size for file in files))}")


@click.command(cls=Verb, examples=("cloudrun outputs push last",))
@run_argument
def push(run: str) -> None:
    """Store outputs in the run's bucket.

    A run that was submitted with --outputs does so at its end; this does it again, after a cut line or
    for what came later. Only what changed travels. Prints the address.
    """
    client = open_client()
    found = client.run(run).id
    sent = client.push_outputs(found, on_event=Watcher())
    render.data(f"{client.outputs_place(found)}/{found}")
    render.say(f"{size(sent)} sent")


@click.command(
    "open", cls=Verb, examples=("cloudrun outputs open last", "cloudrun outputs open last curves.png")
)
@run_argument
@click.argument("path", required=False, default="")
def open_outputs(run: str, path: str) -> None:
    """Open a run's outputs on the desktop.

    Prints the path, and opens it where there is a desktop to do so.
    """
    client = open_client()
    found = client.run(run).id
    target = _find(client, found, path) if path else client.files(found).outputs
    if not target.exists():
        raise NotFound(f"no outputs of {found} are at home", hint=f"cloudrun outputs pull {found}")
    render.data(str(target))
    opener = desktop_opener()
    if opener:
        subprocess.run(
            [opener, str(target)], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def desktop_opener() -> str:
    """The desktop's own opener, "" where there is no desktop."""
    if sys.platform == "darwin":
        return "open"
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return shutil.which("xdg-open") or "" if has_screen else ""


def _placed(client: Client, run: str) -> tuple[list[BundleFile], dict[str, list[str]]]:
    """Every output that is somewhere, by path, and where: home, bucket."""
    home = {file.path: file for file in client.outputs(run)}
    try:
        stored = {file.path: file for file in client.bucket_outputs(run)}
    except CloudrunError as error:
        render.say(f"the bucket was not asked: {error.message}")
        stored = {}
    found = {**stored, **home}
    there = [("home", home), ("bucket", stored)]
    where = {path: [name for name, paths in there if path in paths] for path in found}
    return [found[path] for path in sorted(found)], where


def _find(client: Client, run: str, path: str) -> Path:
    """That output at home, fetched first if it is not there. Only listed paths are reached."""
    wanted = path.strip("/")
    for attempt in range(2):
        paths = [file.path for file in client.outputs(run)]
        if wanted in paths or any(known.startswith(wanted + "/") for known in paths):
            return client.files(run).outputs / wanted
        if attempt == 0 and not client.run(run).state.final:
            client.pull_outputs(run)
        elif attempt == 0:
            client.fetch_outputs(run, path=wanted)
    raise NotFound(f"{run} has no output {path!r}", hint=f"cloudrun outputs list {run}")
