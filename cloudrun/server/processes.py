"""Who is who among this computer's processes: by pid and start time, or by environment, never by name.

A pid alone is reused; a pid with its start time is one process for ever, over reboots too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection
from functools import cache
from pathlib import Path

MACHINE_VARIABLE = "CLOUDRUN_MACHINE"  # in the environment of every process of a machine: its folder
PROC = Path("/proc")
TERM_GRACE_S = 3.0  # between SIGTERM and SIGKILL when a machine is switched off


def start_mark(pid: int) -> str:
    """What tells this process from any other that had or will have its pid; "" when it is gone."""
    if not _has_proc():
        return _ps("-o", "lstart=", "-p", str(pid)).strip()
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, started_ticks = fields[0], fields[19]  # proc(5): fields 3 and 22; "(name)" may hold anything
    return "" if state in "ZX" else f"{_boot_id()}:{started_ticks}"


def alive(pid: int, mark: str) -> bool:
    """Whether that very process still runs."""
    return bool(mark) and start_mark(pid) == mark


def belonging_to(folder: Path) -> list[int]:
    """Every live process of the machine in that folder, found by the environment it was started with."""
    if not _has_proc():
        return _belonging_by_ps(folder)
    entry = f"{MACHINE_VARIABLE}={folder}".encode()
    found = []
    for process in PROC.iterdir():
        if process.name.isdigit() and entry in _environ(process) and start_mark(int(process.name)):
            found.append(int(process.name))
    return found


def end_all(folder: Path, *, spare: Collection[int] = (), grace_s: float = TERM_GRACE_S) -> None:
    """End every process of that machine: SIGTERM, a grace period, SIGKILL. Blocks until they are gone."""
    deadline = time.monotonic() + grace_s
    seen: dict[int, str] = {}
    while True:
        fresh = {pid: start_mark(pid) for pid in belonging_to(folder) if pid not in seen and pid not in spare}
        seen |= fresh
        # A process that is ending has no environment any more, but still holds its files and locks.
        left = [pid for pid, mark in seen.items() if alive(pid, mark)]
        if not left:
            return
        too_late = time.monotonic() > deadline
        _signal(left if too_late else fresh, signal.SIGKILL if too_late else signal.SIGTERM)
        time.sleep(0.02)  # no event tells of the end of a process that is not our child


def ancestors(pid: int) -> set[int]:
    """That process and all above it."""
    line = {pid}
    while (pid := _parent(pid)) > 1 and pid not in line:
        line.add(pid)
    return line


def _signal(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _parent(pid: int) -> int:
    if not _has_proc():
        return int(_ps("-o", "ppid=", "-p", str(pid)).strip() or 0)
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _environ(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # gone meanwhile, or another user's
        return []


def _belonging_by_ps(folder: Path) -> list[int]:
    entry = f" {MACHINE_VARIABLE}={folder} "
    lines = _ps("-E", "-ww", "-x", "-o", "pid=,command=").splitlines()
    return [int(line.split(None, 1)[0]) for line in lines if entry in f"{line} "]


def _ps(*arguments: str) -> str:
    """macOS and the BSDs have no /proc."""
    answer = subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False)
    return answer.stdout


@cache
def _has_proc() -> bool:
    return (PROC / "self" / "stat").exists()


@cache
def _boot_id() -> str:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
