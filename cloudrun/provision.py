"""Stage 7: a fresh machine becomes a ready one, and says what is really on it.

A stack's steps (provision_steps.py) run in its order: check, apply where that says no, check again. One
command asks all of them, so a machine that is ready costs one. Everything may be repeated at any point.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cloudrun import assets
from cloudrun.config import AS_FOUND, Settings
from cloudrun.errors import ConnectFailed, ConnectionLost, NotFound, StepFailed
from cloudrun.events import Note, OnEvent, ignore
from cloudrun.models import Machine, Market, Result, Stack
from cloudrun.provision_steps import (
    FRAMEWORKS,
    TUNING,
    Checks,
    Step,
    apply_script,
    check_script,
    read_checks,
    steps_of,
)
from cloudrun.remote.process import probe
from cloudrun.remote.shell import Shell

GROW_TIMEOUT_S = 600.0  # ext4 grows terabytes in seconds; a busy disk may take longer
STEP_TIMEOUT_S = 1800.0  # PyTorch with its CUDA libraries is 3 GB of wheels, CUDA 2 GB of packages
CHECK_TIMEOUT_S = 300.0  # a framework that starts on a cold disk
REBOOT_TIMEOUT_S = 900.0  # as a first boot
REBOOT_CODE = 194  # of a step that is done once the machine has started anew
LINE_WAITS_S = (1.0, 5.0, 20.0)  # after a cut connection
TAIL_CHARS = 500  # of what a step printed, in its error
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def provision(
    shell: Shell, machine: Machine, stack: Stack, settings: Settings, *, on_event: OnEvent = ignore
) -> Mapping[str, str]:
    """Make the machine hold what the stack pins, and read back what is really there: its stack lock, with
    apt:NAME for packages and stack-hash. Blocking (minutes on a fresh machine), idempotent, resumable.

    Machines of one's own are taken as they are. Raises StepFailed with a step's last words, or for a
    framework that is missing in the end: a run would only find out later.
    """
    names = tuple(name for name, _pin in stack.frameworks)
    versions = probe(shell, names)
    packages: Mapping[str, str] = {}
    if machine.market is not Market.OWN:
        steps = steps_of(stack, settings)
        if not (_only_frameworks(machine, steps, settings) and _hold(stack, versions, settings)):
            work = _Provisioning(shell, machine, stack.packages, settings, on_event)
            packages = work.run(steps)
            versions = probe(shell, names) if work.changed else versions
    missing = [name for name in names if not versions.get(name)]
    if missing:
        raise StepFailed(
            f"{machine.name} has no {', '.join(missing)}, which stack {stack.name} needs",
            hint=_how_to_install(machine, missing),
        )
    from cloudrun.stacks import stack_hash

    return {**versions, **packages, "stack-hash": stack_hash(stack)}


def steps_on(machine: Machine, stack: Stack, settings: Settings) -> list[Step]:
    """The steps that a machine stands on: none where it is taken as it is."""
    steps = steps_of(stack, settings)
    as_it_is = machine.market is Market.OWN or _only_frameworks(machine, steps, settings)
    return [] if as_it_is else steps


def reapply(
    shell: Shell,
    machine: Machine,
    steps: Sequence[Step],
    settings: Settings,
    *,
    anew: Sequence[str] = (),
    on_event: OnEvent = ignore,
) -> None:
    """Apply just these steps, in the order given, each checked; `anew`: names of those to apply even where
    the check says yes. Blocking (a driver: minutes, and maybe a reboot), idempotent. Raises StepFailed."""
    work = _Provisioning(shell, machine, (), settings, on_event)
    for step in steps:
        work.apply(step, anew=step.name in anew)


def tune_again(shell: Shell, machine: Machine, settings: Settings, *, on_event: OnEvent = ignore) -> None:
    """What a reboot takes from a machine: persistence mode and clocks of its GPU. One command where its stack
    has such a step, none elsewhere. Blocking, idempotent. What fails is told: no start is lost over it."""
    stack = stack_of(machine)
    steps = steps_on(machine, stack, settings) if stack and machine.provisioned else []
    try:
        tuning = [step for step in steps if step.name == TUNING]
        reapply(shell, machine, tuning, settings)
    except StepFailed as error:
        on_event(Note(error.message))


def stack_of(machine: Machine) -> Stack | None:
    """The stack that a machine was made ready for; None for none, and for a file of its user's own."""
    from cloudrun.stacks import load_stack

    with contextlib.suppress(NotFound):
        return load_stack(machine.stack) if machine.stack else None
    return None


def grow_disk(shell: Shell) -> None:
    """Let the partition and file system of / take in the whole disk. Blocking, idempotent, online.

    Raises StepFailed, with what the step printed, for a layout that it does not know.
    """
    step = assets.provisioning_dir() / "steps" / "10-grow-disk.sh"
    done = shell.run("sh -s apply", input=step.read_bytes(), timeout_s=GROW_TIMEOUT_S, check=False)
    if not done:
        hint = "the disk itself has its new size; grow partition and file system by hand"
        raise StepFailed(f"step 10-grow-disk failed: {_last_words(done)}", hint=hint)


def log_path(settings: Settings, machine: str) -> Path:
    """What provisioning a machine did, step by step, for its user to read later."""
    return settings.home / "provisioning" / f"{machine}.log"


def note_step(settings: Settings, machine: str, text: str) -> None:
    """A line of that log. A machine that has one is not taken as it is found: steps are checked on it."""
    path = log_path(settings, machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    with path.open("a", encoding="utf-8") as log:
        log.write(f"{at} {text}\n")


class _Provisioning:
    """The steps of one stack on one machine."""

    def __init__(
        self,
        shell: Shell,
        machine: Machine,
        packages: Sequence[tuple[str, str]],
        settings: Settings,
        on_event: OnEvent,
    ) -> None:
        self._shell = shell
        self._machine = machine
        self._packages = tuple(name for name, _version in packages)
        self._settings = settings
        self._on_event = on_event
        self.changed = False  # whether a step was applied

    def run(self, steps: Sequence[Step]) -> Mapping[str, str]:
        """Until every check says yes. The packages' versions, as apt:NAME."""
        tick = time.monotonic()
        checks = self._check(steps)
        if self._settings.sim and not checks.root:
            steps = self._without_root(steps)
        failing = checks.failing(steps)
        holding = list(steps).index(failing[0]) if failing else len(steps)
        self._log(f"{holding} of {len(steps)} steps hold, in their order", time.monotonic() - tick)
        for step in steps[holding:]:  # what one installs, later ones may have to set up
            self.apply(step)
        self.changed = bool(failing)
        return self._check(()).packages if self.changed else checks.packages

    def _check(self, steps: Sequence[Step]) -> Checks:
        return read_checks(self._insist(check_script(steps, self._packages), CHECK_TIMEOUT_S).text)

    def _without_root(self, steps: Sequence[Step]) -> list[Step]:
        kept = [step for step in steps if not step.needs_root]
        if len(kept) < len(steps):
            left_out = ", ".join(step.name for step in steps if step.needs_root)
            self._on_event(Note(f"{self._machine.name}: a rehearsal without root leaves out {left_out}"))
        return kept

    def apply(self, step: Step, *, anew: bool = False) -> None:
        tick = time.monotonic()
        done = self._insist(apply_script(step, anew=anew), STEP_TIMEOUT_S)
        if done.exit_code == REBOOT_CODE:
            self._log(f"{step.name} asks for a reboot", time.monotonic() - tick)
            self._reboot()
            done = self._insist(apply_script(step), STEP_TIMEOUT_S)
        seconds = time.monotonic() - tick
        if not done:
            self._log(f"{step.name} failed ({done.exit_code}): {_last_words(done)}", seconds)
            raise StepFailed(
                f"step {step.name} failed on {self._machine.name}: {_last_words(done)}",
                hint=_look(self._machine),
            )
        self._log(f"{step.name} applied", seconds)
        self._on_event(Note(f"{self._machine.name}: {step.name} applied in {seconds:.1f} s"))

    def _insist(self, script: bytes, timeout_s: float) -> Result:
        """Run it, again after a cut connection: a step that was cut off is completed by its next apply."""
        for wait_s in LINE_WAITS_S:
            try:
                return self._shell.run("sh -s", input=script, timeout_s=timeout_s, check=False)
            except ConnectionLost:
                self._log("the connection was lost", 0.0)
                time.sleep(min(wait_s, self._settings.poll_s))
        return self._shell.run("sh -s", input=script, timeout_s=timeout_s, check=False)

    def _reboot(self) -> None:
        """Start the machine anew and wait until its shell answers. Raises StepFailed when it does not."""
        tick, before = time.monotonic(), self._shell.run(BOOT_ID, timeout_s=30).text
        with contextlib.suppress(ConnectionLost):  # it goes down under the command
            self._shell.run("sudo -n shutdown -r now", timeout_s=30, check=False)
        while time.monotonic() - tick < REBOOT_TIMEOUT_S:
            with contextlib.suppress(ConnectFailed, ConnectionLost):
                if self._shell.run(BOOT_ID, timeout_s=20).text != before:
                    self._log("started anew", time.monotonic() - tick)
                    return
            time.sleep(min(0.5, self._settings.poll_s))
        raise StepFailed(
            f"{self._machine.name} did not come back from a reboot that a step asked for",
            hint=f"cloudrun machines list; cloudrun terminate {self._machine.name} lets it go",
        )

    def _log(self, text: str, seconds: float) -> None:
        note_step(self._settings, self._machine.name, f"{text} ({seconds:.1f} s)")


def _only_frameworks(machine: Machine, steps: Sequence[Step], settings: Settings) -> bool:
    """Whether frameworks are all that counts: the stack has no other step, or the machine may be taken as it
    is found and none of its steps was begun yet."""
    as_found = settings.frameworks == AS_FOUND and not log_path(settings, machine.name).exists()
    return as_found or all(step.name == FRAMEWORKS for step in steps)


def _hold(stack: Stack, versions: Mapping[str, str], settings: Settings) -> bool:
    """Whether what was found does for the stack's frameworks."""
    return bool(stack.frameworks or not stack.steps) and all(
        versions.get(name)
        and (settings.frameworks == AS_FOUND or not pin or versions[name].partition("+")[0] == pin)
        for name, pin in stack.frameworks
    )


def _last_words(done: Result) -> str:
    said = done.stderr.decode("utf-8", "replace").strip() or done.text.strip()
    return said[-TAIL_CHARS:]


def _how_to_install(machine: Machine, missing: list[str]) -> str:
    if machine.provider == "local":
        return "pip install 'cloudrun[local]' beside cloudrun, then try again"
    if machine.market is Market.OWN:
        return f"cloudrun ssh {machine.name} -- python3 -m pip install {' '.join(missing)}"
    return _look(machine)


def _look(machine: Machine) -> str:
    return f"cloudrun ssh {machine.name} shows why; launch --stack none takes the machine as it is"
