"""init: a new job folder that runs as it is and honours the whole contract."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.errors import Refused, UsageError

FILES = {"job.toml.in": "job.toml", "train.py.in": "train.py", "cloudrunignore.in": ".cloudrunignore"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # what job.toml accepts as a name


@click.command(
    cls=Verb, examples=("cloudrun init hello && cloudrun submit hello", "cloudrun init . --name mnist")
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", default="", help="The job's name; without it the folder's.")
def init(folder: Path, name: str) -> None:
    """Write a new job folder that runs as it is.

    A job.toml that explains itself, and a train.py that writes metrics and checkpoints, stops when
    asked, and goes on where it stopped. Files that are there already are never overwritten.
    """
    name = name or folder.absolute().name
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a job's name", hint="--name with letters, digits, '.', '_' and '-'"
        )
    taken = [target for target in FILES.values() if (folder / target).exists()]
    if taken:
        raise Refused(f"{folder / taken[0]} is there already", hint="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for source, target in FILES.items():
        text = resources.files("cloudrun.cli").joinpath("template", source).read_text(encoding="utf-8")
        (folder / target).write_text(text.replace("@NAME@", name), encoding="utf-8")
        render.data(str(folder / target))
    render.say(f"try it with: cloudrun submit {folder}")
