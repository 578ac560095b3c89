"""data init, upload, add: what makes versions of datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import complete_machine, open_client
from cloudrun.cli.text import plural, size
from cloudrun.cli.watch import Watcher
from cloudrun.errors import UsageError

if TYPE_CHECKING:
    from cloudrun.datasets import Dataset
    from cloudrun.models import Bundle

SHOWN = 5  # paths that were left out, or look like secrets


@click.command(cls=Verb, examples=("cloudrun data init horses", "cloudrun data init horses ./images"))
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
def init(name: str, folder: Path) -> None:
    """Tie a folder to a dataset's name.

    `cloudrun data upload` in that folder needs no --name then. FOLDER is this one if none is named.
    """
    made = open_client().init_data(name, folder)
    render.say(f"{made} ties this folder to {name}; next: cloudrun data upload {folder}")


@click.command(
    cls=Verb,
    examples=(
        "cloudrun data upload ./images --name horses",
        "cloudrun data upload --to bench",
        "cloudrun data upload ./images --name horses --to s3://bucket/data",
    ),
)
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option("--name", default="", metavar="NAME", help="The dataset; else the one the folder is tied to.")
@click.option(
    "--to",
    default="",
    metavar="MACHINE|ADDRESS",
    shell_complete=complete_machine,
    help="Bring it to this machine now, or into s3://bucket/prefix or az://container/prefix.",
)
def upload(folder: Path, name: str, to: str) -> None:
    """Keep what a folder holds as a new version.

    Files are copied into cloudrun's home, each content once; a folder that did not change makes no new
    version. .cloudrunignore leaves files out. Interrupted, it goes on where it stopped when run again.
    From a bucket, rented machines fetch it themselves.
    """
    watcher = Watcher()
    made, tree = open_client().upload_data(folder, name=name, to=to, on_event=watcher)
    _tell_left_out(tree)
    _tell(made)
    if to:
        render.say(f"it is {'in' if '://' in to else 'on'} {to}")


@click.command(
    cls=Verb,
    examples=(
        "cloudrun data add features last:features",
        "cloudrun data add svhn --url https://example.org/train.tar.gz --sha256 HEX --extract",
    ),
)
@click.argument("name")
@click.argument("source", metavar="[RUN[:PATH]]", required=False, default="")
@click.option("--url", default="", metavar="URL", help="Machines fetch it from here, on their own line.")
@click.option("--sha256", default="", metavar="HEX", help="With --url: what `sha256sum` says of that file.")
@click.option("--extract", is_flag=True, help="With --url: unpack the tar or zip file.")
def add(name: str, source: str, url: str, sha256: str, extract: bool) -> None:
    """Make a version of a run's outputs, or of an address.

    RUN:PATH is a folder below the run's outputs, RUN all of them. With --url nothing is fetched now: each
    machine that a run needs it on downloads it once, and checks it.
    """
    if bool(source) == bool(url):
        raise UsageError(
            "name either a run or an address", hint="cloudrun data add NAME RUN:PATH, or --url URL"
        )
    client = open_client()
    if url:
        _tell(client.add_url(name, url, sha256=sha256, extract=extract))
        return
    run, _, path = source.partition(":")
    _tell(client.add_outputs(name, run, path, on_event=Watcher()))


def _tell(made: Dataset) -> None:
    amount = f"from {made.url}" if made.url else f"{plural(made.files, 'file')}, {size(made.size_bytes)}"
    render.say(f"{made.label} ({made.digest[:12]}): {amount}")
    render.say(f"a run gets it with: cloudrun submit JOB --data {made.name}")


def _tell_left_out(tree: Bundle) -> None:
    for item in tree.ignored[:SHOWN]:
        render.say(f"left out: {item.path} by {item.rule}")
    if len(tree.ignored) > SHOWN:
        render.say(f"left out: {len(tree.ignored) - SHOWN} more")
    if tree.secrets:
        listed = ", ".join(tree.secrets[:SHOWN])
        render.say(f"warning: this looks like secrets, and machines will have it: {listed}")
