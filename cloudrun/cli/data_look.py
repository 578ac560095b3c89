"""data list, files, get, delete."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import (
    complete_machine,
    confirm,
    dry_run_option,
    json_option,
    open_client,
    yes_option,
)
from cloudrun.cli.shapes import Shape, output_shape, time_shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import plural, size
from cloudrun.errors import UsageError

if TYPE_CHECKING:
    from cloudrun.client import Client
    from cloudrun.datasets import Dataset

RUNS_SHOWN = 3
COLUMNS = (
    Column("DATASET", 0),
    Column("VERSION", 1),
    Column("DIGEST", 4),
    Column("ADDED", 3),
    Column("FILES", 5, right=True),
    Column("SIZE", 2, right=True),
    Column("RUNS", 7, least=10, optional=True),
    Column("FROM", 8, least=10),
    Column("IN", 6, least=12, optional=True),
)
FILE_COLUMNS = (Column("SIZE", 1, right=True), Column("FILE", 0))


@click.command(cls=Verb, name="list", examples=("cloudrun data list", "cloudrun data list horses --json"))
@click.argument("name", required=False, default="")
@json_option
def list_all(name: str, as_json: bool) -> None:
    """Show datasets, their versions and their runs."""
    client = open_client()
    found, places = client.datasets(name), client.data_places()
    if as_json:
        render.as_json(
            [
                {**dataset_shape(each), "runs": runs, "places": places.get(each.digest, [])}
                for each, runs in found
            ]
        )
        return
    if not found:
        render.say("no datasets yet: cloudrun data upload FOLDER --name NAME")
        return
    render.table(COLUMNS, [_row(each, runs, places.get(each.digest, ())) for each, runs in found])


@click.command(cls=Verb, examples=("cloudrun data files horses", "cloudrun data files horses:v1 --json"))
@click.argument("name")
@json_option
def files(name: str, as_json: bool) -> None:
    """Show the files of a dataset.

    NAME is its newest version; NAME:v1, or NAME: with the first digits of a digest, an older one.
    """
    found = open_client().dataset_files(name)
    if as_json:
        render.as_json([output_shape(file) for file in found])
        return
    rows = [(size(file.size), f"{file.path} -> {file.link}" if file.link else file.path) for file in found]
    render.table(FILE_COLUMNS, rows)


@click.command(
    cls=Verb,
    examples=(
        "cloudrun data get horses --to ./again",
        "cloudrun data get horses:v1 train/brown --to ./brown",
    ),
)
@click.argument("name")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--to", required=True, type=click.Path(path_type=Path), help="A folder, new or empty.")
def get(name: str, paths: Sequence[str], to: Path) -> None:
    """Write a dataset, or a part of it, into a folder.

    Every file is checked against its hash.
    """
    tree = open_client().get_data(name, paths, to)
    render.say(f"{plural(len(tree.files), 'file')}, {size(tree.size_bytes)} in {to}")


@click.command(
    cls=Verb,
    examples=(
        "cloudrun data delete horses:v1",
        "cloudrun data delete horses -y",
        "cloudrun data delete --on k80",
    ),
)
@click.argument("name", required=False, default="")
@click.option(
    "--on",
    default="",
    metavar="MACHINE",
    shell_complete=complete_machine,
    help="Only the copy on this machine; without NAME all data that lies there.",
)
@dry_run_option
@yes_option
def delete(name: str, on: str, dry_run: bool, yes: bool) -> None:
    """Delete a dataset, or one version of it.

    It goes from the buckets that it was put into, too. Copies on machines go with the machines, or with --on.
    A version that an unfinished run uses is not deleted.
    """
    client = open_client()
    if not name and not on:
        raise UsageError("name a dataset", hint="cloudrun data list")
    chosen, places = client.find_data(name) if name else [], client.data_places()
    if on:
        _delete_on(client, client.machine(on).name, chosen, dry_run=dry_run, yes=yes)
        return
    render.table(COLUMNS, [_row(each, [], places.get(each.digest, ())) for each in chosen])
    if dry_run:
        render.say("dry run: nothing was deleted")
        return
    confirm(f"Delete {plural(len(chosen), 'version')} for good?", yes=yes)
    freed = client.delete_data(chosen)
    render.say(f"{plural(len(chosen), 'version')} deleted, {size(freed)} freed")


def _delete_on(client: Client, machine: str, chosen: Sequence[Dataset], *, dry_run: bool, yes: bool) -> None:
    freed, used = client.discard_data(machine, chosen, dry_run=True)
    if used:
        render.say(f"{plural(len(used), 'version')} stays: a run on {machine} has not ended")
    if dry_run or not freed:
        render.say(f"{size(freed)} would be freed on {machine}; nothing was deleted")
        return
    confirm(f"Delete {size(freed)} of data on {machine}?", yes=yes)
    freed, _ = client.discard_data(machine, chosen)
    render.say(f"{size(freed)} freed on {machine}")


def _row(each: Dataset, runs: Sequence[str], places: Sequence[str]) -> tuple[str, ...]:
    more = f" and {len(runs) - RUNS_SHOWN} more" if len(runs) > RUNS_SHOWN else ""
    return (
        each.name,
        each.version,
        each.digest[:12],
        each.added_at.strftime("%Y-%m-%d"),
        "" if each.url else f"{each.files:,}",
        "" if each.url else size(each.size_bytes),
        ", ".join(runs[-RUNS_SHOWN:]) + more,
        each.source,
        ", ".join(places),
    )


def dataset_shape(each: Dataset) -> Shape:
    """One version, without who uses it and where else it lies."""
    return {
        "name": each.name,
        "version": each.version,
        "digest": each.digest,
        "added_at": time_shape(each.added_at),
        "files": each.files,
        "size_bytes": each.size_bytes,
        "source": each.source,
        "url": each.url,
    }
