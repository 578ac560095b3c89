"""What a machine says of itself, read in one SSH command: the checks of its steps, what is installed, and
what `provisioning/health.sh` prints."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloudrun import assets
from cloudrun.errors import TransferFailed
from cloudrun.provision_steps import Checks, Step, check_script, read_checks
from cloudrun.remote.agentlink import push_agent
from cloudrun.remote.process import probe_script, read_probe
from cloudrun.remote.shell import Shell

LOOK_TIMEOUT_S = 420.0  # the checks' 300 s (a framework on a cold disk), nvidia-smi, du and the probe
NO_GUARD = "flock -n ~/.cloudrun/guard.lock true"  # true while nobody watches
_CLOCK = "date +%s.%N"
_SECONDS = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system that runs write to."""

    mount: str
    size_bytes: int
    free_bytes: int
    used_percent: int


@dataclass(frozen=True, slots=True)
class Look:
    """What the machine said. Times are seconds of the epoch."""

    checks: Checks
    facts: Mapping[str, str]  # as `probe` has them
    watched: bool  # its guard lives
    smi_code: int = 0
    smi_words: str = ""
    held: frozenset[str] = frozenset()
    unattended: str = "0"  # APT::Periodic::Unattended-Upgrade; "0" or "" is off
    upgraded_by: tuple[str, ...] = ()  # files of apt that turn it on
    disks: tuple[Disk, ...] = ()
    folders: tuple[tuple[str, int], ...] = ()  # (path, bytes), biggest first, where a disk is nearly full
    ahead_s: tuple[float, float] = field(default=(0.0, 0.0))  # its clock before ours: at least, at most


def look(shell: Shell, steps: Sequence[Step], packages: Sequence[str], frameworks: Sequence[str]) -> Look:
    """Ask everything (blocking, some seconds; a framework that is asked for its GPU may take a minute) and
    change nothing. One command; a machine that lacks this agent gets it first, and is asked again."""
    script = _script(steps, packages, frameworks)
    for _ in range(2):
        asked_at = time.time()
        text = shell.run("sh -s", input=script, timeout_s=LOOK_TIMEOUT_S).text
        answered_at = time.time()
        words = [line.partition(" ") for line in text.splitlines()]
        if any(word == "probe" and rest for word, _space, rest in words):
            break
        push_agent(shell)
    try:
        return _read(text, words, asked_at, answered_at)
    except (ValueError, IndexError) as error:
        raise TransferFailed(f"the machine's answer cannot be read: {error}", hint="try again") from error


def _script(steps: Sequence[Step], packages: Sequence[str], frameworks: Sequence[str]) -> bytes:
    health = (assets.provisioning_dir() / "health.sh").read_bytes()
    before = f"echo clock $({_CLOCK})\n{NO_GUARD}; echo guard $?\n"
    probe = f'echo probe "$({probe_script(frameworks)})"\n'
    after = f"\necho clock $({_CLOCK})\nexit 0\n"
    return b"".join((before.encode(), check_script(steps, packages), probe.encode(), health, after.encode()))


def _read(text: str, words: Sequence[tuple[str, str, str]], asked_at: float, answered_at: float) -> Look:
    said: dict[str, list[str]] = {}
    for word, _space, rest in words:
        said.setdefault(word, []).append(rest)
    code, _, smi_words = said.get("smi", ["0"])[0].partition(" ")
    return Look(
        checks=read_checks(text),
        facts=read_probe(said.get("probe", [""])[0]),
        watched=said.get("guard", [""])[0] != "0",
        smi_code=int(code),
        smi_words=smi_words.strip(),
        held=frozenset(" ".join(said.get("held", [])).split()),
        unattended=said.get("unattended", [""])[0].strip(),
        upgraded_by=tuple(said.get("upgraded-by", [])),
        disks=tuple(_disk(line) for line in said.get("disk", [])),
        folders=tuple(_folder(line) for line in said.get("folder", [])),
        ahead_s=_ahead_s(said.get("clock", []), asked_at, answered_at),
    )


def _disk(line: str) -> Disk:
    size, free, percent, mount = line.split(" ", 3)
    return Disk(mount, int(size) * 1024, int(free) * 1024, int(percent))


def _folder(line: str) -> tuple[str, int]:
    size, _, path = line.replace("\t", " ", 1).partition(" ")
    return path, int(size) * 1024


def _ahead_s(clocks: Sequence[str], asked_at: float, answered_at: float) -> tuple[float, float]:
    """Its first word left after we asked, its last before we heard it: between the two lies the truth."""
    times = [float(found[0]) for clock in clocks if (found := _SECONDS.match(clock))]
    if len(times) < 2:
        return 0.0, 0.0
    return times[-1] - answered_at, times[0] - asked_at
