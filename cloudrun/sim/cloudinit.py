"""Doing on a machine what its user data says, in cloud-init's order and as often as cloud-init does it.

Early, before SSH answers:  bootcmd at every boot; then once: write_files, (users and keys: accounts.py)
Late, SSH answers already:  once: write_files with `defer`; at every boot: scripts/per-boot; once: runcmd

As there, a file with an owner who does not exist yet ends write_files; a script's failure stops no other.
The order is that of cloud-init's own /etc/cloud/cloud.cfg, read 2026-11. Standard library only.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudrun.sim.cloudconfig import CloudConfig, File

CLOUD = "/var/lib/cloud"
PER_BOOT = f"{CLOUD}/scripts/per-boot"
OUTPUT = "/var/log/cloud-init-output.log"


@dataclass(frozen=True, slots=True)
class Place:
    """Where paths of the user data lie, and with whose rights its programs run."""

    id: str
    environment: Mapping[str, str]
    log: Callable[[str], None]
    locate: Callable[[str], Path] = Path  # a path of the user data -> the path here
    translate: Callable[[str], str] = str  # the same for every path within a script
    owns: bool = True  # owners can be given; False: all is the one user's


def run_early(config: CloudConfig, place: Place) -> None:
    """bootcmd, then the files. Blocks until all is done."""
    for note in config.notes:
        place.log(note)
    for folder in (f"{CLOUD}/instances/{place.id}/sem", f"{CLOUD}/instances/{place.id}/scripts", PER_BOOT):
        place.locate(folder).mkdir(parents=True, exist_ok=True)
    if config.bootcmd:
        _run_lines("bootcmd", config.bootcmd, place)
    once("write_files", place, lambda: _write_files(config, place, deferred=False))


def run_late(config: CloudConfig, place: Place) -> None:
    """Deferred files, per-boot scripts, runcmd or the script that the user data is."""
    once("write_files_deferred", place, lambda: _write_files(config, place, deferred=True))
    for script in sorted(place.locate(PER_BOOT).iterdir()):
        if script.is_file() and os.access(script, os.X_OK):
            _run([str(script)], place)
        else:
            place.log(f"{script} is not executable")
    once("scripts_user", place, lambda: _run_user_scripts(config, place))


def once(what: str, place: Place, do: Callable[[], None]) -> None:
    """Do it at the first boot only. One that was cut off by the machine's end counts as done, as there."""
    mark = place.locate(f"{CLOUD}/instances/{place.id}/sem/config_{what}")
    if not mark.exists():
        mark.touch()
        do()


def _write_files(config: CloudConfig, place: Place, *, deferred: bool) -> None:
    for file in config.files:
        if file.deferred != deferred:
            continue
        try:
            _write(file, place)
        except (OSError, LookupError) as error:
            place.log(f"write_files ended at {file.path}: {error}")
            return


def _write(file: File, place: Place) -> None:
    path = place.locate(file.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = base64.b64decode(file.content_b64)
    if content.startswith(b"#!"):
        content = os.fsencode(place.translate(os.fsdecode(content)))
    with path.open("ab" if file.append else "wb") as out:
        os.fchmod(out.fileno(), file.mode)
        out.write(content)
    if place.owns:
        user, _, group = file.owner.partition(":")
        shutil.chown(path, user or "root", group or user or "root")


def _run_user_scripts(config: CloudConfig, place: Place) -> None:
    if config.runcmd:
        _run_lines("runcmd", config.runcmd, place)
    if config.script:
        path = place.locate(f"{CLOUD}/instances/{place.id}/scripts/part-001")
        path.write_text(place.translate(config.script))
        path.chmod(0o700)
        _run([str(path)], place)


def _run_lines(name: str, lines: tuple[str, ...], place: Place) -> None:
    path = place.locate(f"{CLOUD}/instances/{place.id}/scripts/{name}")
    path.write_text(place.translate("\n".join(("#!/bin/sh", *lines, ""))))
    path.chmod(0o700)
    _run(["/bin/sh", str(path)], place)


def _run(argv: list[str], place: Place) -> None:
    """Blocks until it ends. What it puts out is in cloud-init-output.log, as users know it."""
    output = place.locate(OUTPUT)
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as out:
        try:
            code = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=place.locate("/"),
                env={**place.environment, "INSTANCE_ID": place.id},
                check=False,
            ).returncode
        except OSError as error:  # no interpreter of that name, or it is no program
            place.log(f"{argv[-1]}: {error}")
            return
    if code:
        place.log(f"{argv[-1]} ended with {code}")
