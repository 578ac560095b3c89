"""Is a machine as it should be: asked at its provider and on the machine, and mended where that is safe.

What the machine says is read by health_look.py in one command and judged by health.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from cloudrun import access, machine_off, machines, rent
from cloudrun.context import Context, now
from cloudrun.errors import CloudrunError
from cloudrun.events import Note
from cloudrun.health import Finding, Severity, judge
from cloudrun.health_look import NO_GUARD, Look, look
from cloudrun.models import Guard, Machine, MachineState, Market, Stack
from cloudrun.provision import reapply, stack_of, steps_on
from cloudrun.provision_steps import GPU_SEEN, WITHOUT_ROOT, Step
from cloudrun.remote.shell import Shell
from cloudrun.stacks import load_stack, stack_hash

GUARD, HOST_KEY, STACK = "guard", "host key", "stack"


def examine(ctx: Context, machine: Machine, *, stack: str = "", mend: bool) -> list[Finding]:
    """All findings about one machine (blocking). With `mend`, what can be mended without loss is, and the
    machine is looked at again; steps are left alone while a run goes on there.

    stack: name or file of the stack that the machine was made ready for, instead of the name it has.
    Raises NotFound for one that is not there.
    """
    known = load_stack(stack) if stack else stack_of(machine)
    machine = rent.refresh(ctx, machine)
    found = [_state(machine)]
    if machine.state is MachineState.HALTED and mend:
        found = [_tried(found[0], lambda: machines.stop(ctx, machine))]
    if machine.state is not MachineState.RUNNING:
        return found
    try:
        shell = access.reach(ctx, machine) if mend else ctx.connect(machine)
        with closing(shell):
            patient = _Patient(ctx, machine, shell, known)
            return [*found, *(patient.mend() if mend else patient.examine())]
    except CloudrunError as error:
        return [*found, Finding("reach", Severity.WRONG, error.message, error.hint)]


def is_guarded(ctx: Context, machine: Machine) -> bool:
    """Whether its guard watches a running machine, or none was asked for (blocking). One that cannot be
    reached is taken to have its guard: it was given one to boot with."""
    try:
        with closing(ctx.connect(machine)) as shell:
            return _guard(machine, watched=not shell.run(NO_GUARD, check=False)).ok
    except CloudrunError:
        return True


class _Patient:
    """One running machine that answers."""

    def __init__(self, ctx: Context, machine: Machine, shell: Shell, stack: Stack | None) -> None:
        self._ctx = ctx
        self._machine = machine
        self._shell = shell
        self._stack = stack
        self._runs = ctx.store.list_runs(machine=machine.name, active=True)
        self._steps = steps_on(machine, stack, ctx.settings) if stack else []
        if self._runs:  # the GPU is in use: a framework that takes it all (cnmem) could not, or would disturb
            self._steps = [_unasked(step) for step in self._steps]

    def examine(self) -> list[Finding]:
        return self._judge(self._look())

    def mend(self) -> list[Finding]:
        """Look, cure what has a cure, and look again."""
        before = self.examine()
        failures = self._cure([finding for finding in before if not finding.ok])
        if failures is None:
            return before
        seen = self._look()
        self._renew_lock(seen)
        after = self._judge(seen)
        return [*(_compared(finding, before, failures) for finding in after), *_gone(before, after)]

    def _look(self) -> Look:
        stack = self._stack
        packages = [name for name, _version in stack.packages] if stack else ()
        lock = [name for name, _version in self._machine.versions]
        frameworks = [name for name, _pin in stack.frameworks] if stack else _frameworks(lock)
        return look(self._shell, self._steps, packages, frameworks)

    def _judge(self, seen: Look) -> list[Finding]:
        if self._ctx.settings.sim and not seen.checks.root:
            self._steps = [step for step in self._steps if step.name in WITHOUT_ROOT]
        return [
            Finding("reach", Severity.OK, "its shell answers"),
            _guard(self._machine, watched=seen.watched),
            _host_key(self._ctx, self._machine),
            *judge(self._machine, self._stack, self._steps, seen),
        ]

    def _cure(self, wrong: Sequence[Finding]) -> Mapping[str, str] | None:
        """What could not be cured, and why, by its check; None where there is nothing to cure."""
        ctx, machine, shell = self._ctx, self._machine, self._shell
        cures: dict[str, Callable[[], object]] = {
            GUARD: lambda: rent.set_guard(ctx, machine, shell, _policy(machine)),
            HOST_KEY: lambda: access.secure(ctx, machine, shell),
        }
        failures: dict[str, str] = {}
        mine = [finding for finding in wrong if finding.check in cures]
        for finding in mine:
            failures |= _failure(cures[finding.check], [finding])
        broken = [finding for finding in wrong if finding.steps]
        if broken:
            failures |= self._busy(broken) or _failure(lambda: self._reapply(broken), broken)
        stale = any(finding.check == STACK for finding in wrong)
        return failures if mine or broken or stale else None

    def _reapply(self, broken: Sequence[Finding]) -> None:
        names = {name for finding in broken for name in finding.steps}
        anew = {name for finding in broken if finding.anew for name in finding.steps}
        steps = [step for step in self._steps if step.name in names]
        said = ", ".join(step.name for step in steps)
        self._ctx.on_event(Note(f"{self._machine.name}: reapplies {said}, and looks again"))
        settings, tell = self._ctx.settings, self._ctx.on_event
        reapply(self._shell, self._machine, steps, settings, anew=tuple(anew), on_event=tell)

    def _busy(self, broken: Sequence[Finding]) -> dict[str, str]:
        """A step may replace what a run stands on, or start the machine anew."""
        if not self._runs:
            return {}
        why = f"{self._runs[0].id} goes on there: wait for it, or cloudrun cancel {self._runs[0].id}"
        return {finding.check: why for finding in broken}

    def _renew_lock(self, seen: Look) -> None:
        """A machine that holds all that a changed stack wants now has the lock of that stack."""
        stack, lock = self._stack, dict(self._machine.versions)
        if stack is None or not lock or lock.get("stack-hash") == stack_hash(stack):
            return
        if self._steps and not seen.checks.failing(self._steps):
            lock = {**seen.facts, **seen.checks.packages, "stack-hash": stack_hash(stack)}
            versions = tuple(sorted(lock.items()))
            self._machine = self._ctx.store.update_machine(self._machine.name, versions=versions)


def _frameworks(lock: Sequence[str]) -> list[str]:
    """Those that a lock names beside what every machine has."""
    return [name for name in lock if name in ("torch", "tensorflow", "chainer", "theano", "keras")]


def _unasked(step: Step) -> Step:
    return Step(step.name, {**step.parameters, "SEEN_BY": ""}) if step.name == GPU_SEEN else step


def _state(machine: Machine) -> Finding:
    if machine.state is MachineState.STOPPED:
        if machine_off.is_paused(machine):
            detail, hint = f"stopped by {machine.provider} until there is capacity", "wait, or terminate it"
        elif machine_off.is_evicted(machine):
            detail = f"switched off by {machine.provider} or by its own guard; its disk is billed"
            hint = f"cloudrun machines start {machine.name}"
        else:
            detail, hint = "stopped; its disk is billed", f"cloudrun machines start {machine.name}"
        return Finding("state", Severity.OK, detail, hint if machine.market is not Market.OWN else "")
    if machine.state is MachineState.HALTED:
        detail = f"switched off from inside: {machine.provider} bills it on"
        return Finding("state", Severity.WRONG, detail, f"cloudrun stop {machine.name}, or --fix")
    fine = machine.state in (MachineState.RUNNING, MachineState.PENDING)
    severity = Severity.OK if fine else Severity.WRONG
    return Finding("state", severity, f"{machine.provider} says {machine.state}")


def _guard(machine: Machine, *, watched: bool) -> Finding:
    if machine.deadline_at is None and machine.idle_minutes is None:
        return Finding(GUARD, Severity.OK, "none: it was asked for with --keep")
    if watched:
        return Finding(GUARD, Severity.OK, "it watches, and ends the machine by itself")
    hint = f"cloudrun machines doctor {machine.name} --fix"
    return Finding(GUARD, Severity.WRONG, "nobody watches: nothing but you ends the machine", hint)


def _policy(machine: Machine) -> Guard:
    return Guard(issued_at=now(), deadline_at=machine.deadline_at, idle_minutes=machine.idle_minutes)


def _host_key(ctx: Context, machine: Machine) -> Finding:
    if machine.market is Market.OWN or not (ctx.settings.keys_dir / machine.name / "host_key").exists():
        return Finding(HOST_KEY, Severity.OK, "made on the machine, known here")
    hint = f"cloudrun machines doctor {machine.name} --fix"
    return Finding(HOST_KEY, Severity.WARNING, "still the one of the boot payload", hint)


def _failure(cure: Callable[[], object], findings: Sequence[Finding]) -> dict[str, str]:
    try:
        cure()
    except CloudrunError as error:
        return {finding.check: error.message for finding in findings}
    return {}


def _tried(finding: Finding, cure: Callable[[], object]) -> Finding:
    failures = _failure(cure, [finding])
    if failures:
        return replace(finding, hint=f"could not be mended: {failures[finding.check]}")
    return replace(finding, severity=Severity.OK, mended=True, hint="")


def _gone(before: Sequence[Finding], after: Sequence[Finding]) -> list[Finding]:
    """What was wrong and is no more, where nothing is said of what is right."""
    told = {finding.check for finding in after}
    lost = [finding for finding in before if not finding.ok and finding.check not in told]
    return [Finding(finding.check, Severity.OK, "holds again", mended=True) for finding in lost]


def _compared(finding: Finding, before: Sequence[Finding], failures: Mapping[str, str]) -> Finding:
    """A finding of the second look, seen beside the first."""
    if finding.ok:
        mended = any(each.check == finding.check and not each.ok for each in before)
        return replace(finding, mended=mended)
    if finding.check in failures:
        return replace(finding, hint=f"could not be mended: {failures[finding.check]}")
    return finding
