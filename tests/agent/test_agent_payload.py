"""What a machine is booted with, unpacked as cloud-init does and run as it is, in a folder of its own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from localmachine import LocalShell, follow_to_end, pids_of, wait_for
from resuming import KEY, go, log_of, power_off, start_job
from unpacking import run_script, unpack

from cloudrun.remote import agentlink, process


def test_the_first_boot_arms_the_guard_and_spares_the_client_a_push(
    machine: LocalShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_script(unpack(tmp_path / "disk"), machine.env)
    assert json.loads((machine.base / "guard.json").read_text())["policy"]["idle_s"] == 3600
    assert len(pids_of(machine.home)) == 1
    monkeypatch.setattr(agentlink, "push_agent", None)
    assert process.list_runs(machine) == {}
    assert len(pids_of(machine.home)) == 1  # the same guard: it is of the client's own version


def test_every_boot_takes_up_what_the_last_one_cut(machine: LocalShell, tmp_path: Path) -> None:
    script = unpack(tmp_path / "disk")
    run_script(script, machine.env)
    start_job(machine)
    power_off(machine)
    run_script(script, machine.env)
    wait_for(lambda: log_of(machine).endswith(b"start 2\n"))
    go(machine)
    assert follow_to_end(machine, KEY)[1].exit_code == 0


@pytest.fixture
def bare(machine: LocalShell, tmp_path: Path) -> Iterator[Path]:
    """A machine's programs where there is no Python yet; `sleep` is quick, `shutdown` is written down."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, line in (
        ("sleep", 'echo "$1" >> "$HOME/slept"'),
        ("shutdown", 'echo "$@" > "$HOME/ended"; exec kill -9 $PPID'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    machine.env["PATH"] = f"{programs}:{machine.env['PATH']}"
    yield programs
    power_off(machine)


def without_python(script: Path, interpreters: str) -> None:
    env = script.parents[3] / "cloudrun" / "boot.env"
    lines = [line for line in env.read_text().splitlines() if not line.startswith("INTERPRETERS=")]
    env.write_text("\n".join([*lines, f"INTERPRETERS={shlex.quote(interpreters)}", ""]))


def test_a_machine_without_python_ends_itself_all_the_same(
    machine: LocalShell, tmp_path: Path, bare: Path
) -> None:
    script = unpack(tmp_path / "disk", idle_s=35.0)
    without_python(script, "no-such-python")
    run_script(script, machine.env)
    wait_for((machine.home / "ended").exists)
    assert (machine.home / "slept").read_text().split() == ["10"] * 4
    assert (machine.home / "ended").read_text() == "-h now\n"


def test_a_python_that_a_step_brings_is_taken(machine: LocalShell, tmp_path: Path, bare: Path) -> None:
    script = unpack(tmp_path / "disk", keep=True)
    late = tmp_path / "late-python"
    without_python(script, str(late))
    run_script(script, machine.env)
    wait_for(lambda: (machine.home / "slept").exists() and len((machine.home / "slept").read_text()) > 300)
    assert not (machine.home / "ended").exists()  # a machine that is kept is kept
    late.symlink_to(Path(sys.executable).resolve())
    wait_for((machine.base / "guard.json").exists)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where another user may look in."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_agent_is_the_login_s_not_root_s(open_folder: Path) -> None:
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root, and unshare of util-linux")
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, 54321, 54321)
    shell = LocalShell(home)
    script = unpack(open_folder / "disk", deadline_at=time.time() + 3600)
    (open_folder / "passwd").write_text(
        f"root:x:0:0::/root:/bin/sh\nnobody-of-that-name:x:54321:54321::{home}:/bin/sh\n"
    )
    in_place = f"mount --bind {open_folder}/passwd /etc/passwd && exec {script}"
    subprocess.run(
        ["unshare", "-m", "sh", "-c", in_place], env={**shell.env, "HOME": "/root"}, check=True, timeout=60
    )
    try:
        owner = (shell.base / "guard.json").stat()
        assert (owner.st_uid, owner.st_gid) == (54321, 54321)
        wait_for(lambda: len(pids_of(home)) == 1)  # by its HOME
        (guard,) = pids_of(home)
        assert Path(f"/proc/{guard}").stat().st_uid == 54321
    finally:
        power_off(shell)
