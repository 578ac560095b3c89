"""Is a machine as it should be: asked at its provider and on the machine, and mended where that is safe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from cloudrun import machines, rent
from cloudrun.context import Context, now
from cloudrun.errors import CloudrunError
from cloudrun.models import Guard, Machine, MachineState, Market
from cloudrun.remote.process import probe
from cloudrun.remote.shell import Shell

LEAST_FREE_BYTES = 2 * 10**9  # a checkpoint of the bundled jobs and some logs
CLOCK_SLACK_S = 60.0  # AWS refuses requests signed more than 5 min off; TLS and make suffer sooner


@dataclass(frozen=True, slots=True)
class Finding:
    """One question about a machine and its answer."""

    check: str
    ok: bool
    detail: str
    hint: str = ""  # what to do about it
    mended: bool = False


Mend = Callable[[], object]


def examine(ctx: Context, machine: Machine, *, mend: bool) -> list[Finding]:
    """All findings about one machine (blocking). With `mend`, what can be mended without loss is."""
    machine = rent.refresh(ctx, machine)
    found = [_state(machine)]
    if machine.state is MachineState.HALTED and mend:
        found = [_mended(found[0], lambda: machines.stop(ctx, machine))]
    if machine.state is not MachineState.RUNNING:
        return found
    try:
        shell = rent.reach(ctx, machine) if mend else ctx.connect(machine)
        with closing(shell):
            shell.run("true", timeout_s=20)
            found.append(Finding("reach", ok=True, detail="its shell answers"))
            for finding, cure in _inside(ctx, machine, shell):
                found.append(_mended(finding, cure) if mend and not finding.ok and cure else finding)
    except CloudrunError as error:
        found.append(Finding("reach", ok=False, detail=error.message, hint=error.hint))
    return found


def is_guarded(ctx: Context, machine: Machine) -> bool:
    """Whether its guard watches a running machine, or none was asked for (blocking). One that cannot be
    reached is taken to have its guard: it was given one to boot with."""
    try:
        with closing(ctx.connect(machine)) as shell:
            return _guard(machine, shell).ok
    except CloudrunError:
        return True


def _state(machine: Machine) -> Finding:
    if machine.state is MachineState.STOPPED:
        if rent.is_paused(machine):
            detail, hint = f"stopped by {machine.provider} until there is capacity", "wait, or terminate it"
        elif rent.is_evicted(machine):
            detail = f"switched off by {machine.provider} or by its own guard; its disk is billed"
            hint = f"cloudrun machines start {machine.name}"
        else:
            detail, hint = "stopped; its disk is billed", f"cloudrun machines start {machine.name}"
        return Finding("state", ok=True, detail=detail, hint=hint if machine.market is not Market.OWN else "")
    if machine.state is MachineState.HALTED:
        detail = f"switched off from inside: {machine.provider} bills it on"
        return Finding("state", ok=False, detail=detail, hint=f"cloudrun stop {machine.name}, or --fix")
    fine = machine.state in (MachineState.RUNNING, MachineState.PENDING)
    return Finding("state", ok=fine, detail=f"{machine.provider} says {machine.state}")


def _inside(ctx: Context, machine: Machine, shell: Shell) -> Iterator[tuple[Finding, Mend | None]]:
    """What can be seen on the machine, each with its cure."""
    yield _guard(machine, shell), lambda: rent.set_guard(ctx, machine, shell, _policy(machine))
    yield _host_key(ctx, machine), lambda: rent.secure(ctx, machine, shell)
    yield _clock(shell), None
    facts = probe(shell, ())
    yield _disk(machine, int(facts.get("disk_free_bytes") or 0)), None


def _guard(machine: Machine, shell: Shell) -> Finding:
    if machine.deadline_at is None and machine.idle_minutes is None:
        return Finding("guard", ok=True, detail="none: it was asked for with --keep")
    watched = not shell.run("flock -n ~/.cloudrun/guard.lock true", check=False)
    if watched:
        return Finding("guard", ok=True, detail="it watches, and ends the machine by itself")
    return Finding("guard", ok=False, detail="nobody watches: nothing but you ends the machine", hint="--fix")


def _policy(machine: Machine) -> Guard:
    return Guard(issued_at=now(), deadline_at=machine.deadline_at, idle_minutes=machine.idle_minutes)


def _host_key(ctx: Context, machine: Machine) -> Finding:
    if machine.market is Market.OWN or not (ctx.settings.keys_dir / machine.name / "host_key").exists():
        return Finding("host key", ok=True, detail="made on the machine, known here")
    return Finding("host key", ok=False, detail="still the one of the boot payload", hint="--fix")


def _clock(shell: Shell) -> Finding:
    before = time.time()
    there = float(shell.run("date +%s", timeout_s=20).text)
    off_s = there - (before + time.time()) / 2
    if abs(off_s) <= CLOCK_SLACK_S:
        return Finding("clock", ok=True, detail="right")
    return Finding(
        "clock", ok=False, detail=f"{off_s:+.0f} s off", hint="sudo timedatectl set-ntp true there"
    )


def _disk(machine: Machine, free_bytes: int) -> Finding:
    free = f"{free_bytes / 1e9:.1f} GB free"
    if free_bytes >= LEAST_FREE_BYTES:
        return Finding("disk", ok=True, detail=free)
    more = f"cloudrun machines resize-disk {machine.name} {machine.disk_gb * 2 or 100}"
    return Finding("disk", ok=False, detail=f"nearly full: {free}", hint=more)


def _mended(finding: Finding, cure: Mend) -> Finding:
    try:
        cure()
    except CloudrunError as error:
        return replace(finding, hint=f"could not be mended: {error.message}")
    return replace(finding, ok=True, mended=True, hint="")
