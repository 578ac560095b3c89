"""What is right and wrong with a machine, judged by what it said of itself. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cloudrun.gpu_seen import why_no_gpu
from cloudrun.health_look import Disk, Look
from cloudrun.models import Machine, Market, Stack
from cloudrun.provision_steps import FRAMEWORKS, GPU_SEEN, PACKAGES, TUNING, Step
from cloudrun.stacks import stack_hash

FULL_PERCENT = 90  # as in provisioning/health.sh: from here on a disk is nearly full
LEAST_FREE_BYTES = 2 * 10**9  # a checkpoint of the bundled jobs and some logs
CLOCK_SLACK_S = 5.0  # make and rsync compare times of files; what keeps time by NTP is off by milliseconds
CLOCK_WRONG_S = 60.0  # AWS refuses requests signed more than 5 min off; TLS and tokens suffer sooner
MOST_OF_IT = 0.6  # a folder inside another is the one to name when it holds this share of it
HOLD_SYSTEM, PYTHON = "05-hold-system", "16-python"
MILD = (HOLD_SYSTEM, TUNING)  # without them all works: slower, or until the next upgrade
STACK_HASH = "stack-hash"
# Of the lock, what may change on a sound machine: another type after a stop, its disk.
PASSING = ("cpu_count", "memory_bytes", "disk_free_bytes", "gpu_memory_mib", STACK_HASH)
OF_THE_DRIVER = ("driver", "cuda", "gpu", "gpu_count")  # unknown while it does not answer
RESTART = ("No devices were found", "GPU is lost", "fallen off the bus")  # cured by another host


class Severity(StrEnum):
    """How bad: a warning works now, and will not always."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One question about a machine and its answer."""

    check: str
    severity: Severity
    detail: str
    hint: str = ""  # what to do about it: a command, or a sentence
    steps: tuple[str, ...] = ()  # provisioning steps that repair it, in their order
    anew: bool = False  # they have to be applied although their checks may say yes
    mended: bool = False

    @property
    def ok(self) -> bool:
        return self.severity is Severity.OK


def judge(machine: Machine, stack: Stack | None, steps: Sequence[Step], seen: Look) -> list[Finding]:
    """All findings. stack: the one that the machine was made ready for, None where it is not known here."""
    names = tuple(step.name for step in steps)
    lock = dict(machine.versions)
    found = [
        *_driver(machine, lock, names, seen),
        *_gpu(machine, steps, seen),
        *_versions(machine, stack, lock, names, seen),
        *_holds(machine, stack, names, seen),
        *_upgrades(machine, names, seen),
    ]
    explained = {name for finding in found for name in finding.steps} | {GPU_SEEN}
    return [
        *_stack(machine, stack, lock),
        *found,
        *_steps(machine, steps, explained, seen),
        _clock(machine, seen),
        *(_disk(machine, disk, seen) for disk in seen.disks),
    ]


def _driver(machine: Machine, lock: Mapping[str, str], names: Sequence[str], seen: Look) -> Iterator[Finding]:
    if GPU_SEEN not in names and not lock.get("gpu"):
        return
    if not seen.smi_code:
        facts = seen.facts
        detail = f"{facts.get('driver')} answers: {facts.get('gpu_count')} x {facts.get('gpu')}"
        yield Finding("driver", Severity.OK, detail)
        return
    detail = why_no_gpu(seen.smi_code, seen.smi_words)
    if any(words in seen.smi_words for words in RESTART):
        hint = f"cloudrun stop {machine.name}, then cloudrun start {machine.name}"
        yield Finding("driver", Severity.WRONG, detail, hint)
    elif PACKAGES in names:
        yield Finding("driver", Severity.WRONG, detail, _fix(machine, PACKAGES), (PACKAGES,), anew=True)
    else:
        yield Finding("driver", Severity.WRONG, detail, _look_there(machine))


def _gpu(machine: Machine, steps: Sequence[Step], seen: Look) -> Iterator[Finding]:
    """Whether the framework sees it; a driver that does not answer has been told of."""
    step = next((step for step in steps if step.name == GPU_SEEN), None)
    if step is None or seen.smi_code:
        return
    framework = step.parameters.get("SEEN_BY")
    if seen.checks.codes.get(GPU_SEEN) == 0:
        detail = f"{framework} sees it" if framework else "seen by the driver; the framework was not asked"
        yield Finding("gpu", Severity.OK, detail)
    else:
        said = seen.checks.words.get(GPU_SEEN) or f"{framework} did not answer"
        yield Finding("gpu", Severity.WRONG, said, _look_there(machine))


def _versions(
    machine: Machine, stack: Stack | None, lock: Mapping[str, str], names: Sequence[str], seen: Look
) -> Iterator[Finding]:
    here = {**seen.facts, **seen.checks.packages}
    unknown = (*PASSING, *(OF_THE_DRIVER if seen.smi_code else ()))
    asked = {name: value for name, value in lock.items() if value and name not in unknown}
    other = [name for name, value in asked.items() if here.get(name, "") != value]
    if not asked:
        return
    if not other:
        yield Finding("versions", Severity.OK, f"all {len(asked)} are those of its stack lock")
        return
    steps = tuple(dict.fromkeys(_step_of(name, stack) for name in other))
    steps = tuple(name for name in names if name in steps)
    mild = machine.market is Market.OWN or other == ["kernel"]
    yield Finding(
        "versions",
        Severity.WARNING if mild else Severity.WRONG,
        "; ".join(
            f"{name.removeprefix('apt:')} {here.get(name) or 'gone'}, not {lock[name]}" for name in other
        ),
        _fix(machine, *steps) if steps else "" if mild else _look_there(machine),
        steps,
    )


def _step_of(name: str, stack: Stack | None) -> str:
    """The step that puts this version there."""
    if name.startswith("apt:") or name in OF_THE_DRIVER:
        return PACKAGES
    frameworks = dict((*stack.frameworks, *stack.pip)) if stack else {}
    return {"python": PYTHON, "kernel": HOLD_SYSTEM}.get(name, FRAMEWORKS if name in frameworks else "")


def _holds(machine: Machine, stack: Stack | None, names: Sequence[str], seen: Look) -> Iterator[Finding]:
    if stack is None or PACKAGES not in names:
        return
    free = [name for name, _version in stack.packages if name not in seen.held]
    if not free:
        yield Finding("holds", Severity.OK, f"{len(stack.packages)} packages are held")
        return
    detail = f"the next upgrade moves {', '.join(free)}: not held"
    yield Finding("holds", Severity.WARNING, detail, _fix(machine, PACKAGES), (PACKAGES,))


def _upgrades(machine: Machine, names: Sequence[str], seen: Look) -> Iterator[Finding]:
    if HOLD_SYSTEM not in names:
        return
    if seen.unattended in ("", "0"):
        yield Finding("upgrades", Severity.OK, "none happens by itself")
        return
    detail = "the system upgrades itself, its kernel and driver too"
    if seen.checks.codes.get(HOLD_SYSTEM) != 0 or not seen.upgraded_by:
        yield Finding("upgrades", Severity.WARNING, detail, _fix(machine, HOLD_SYSTEM), (HOLD_SYSTEM,))
    else:  # a later file than the step's own has the last word
        hint = f"cloudrun ssh {machine.name} -- sudo rm {seen.upgraded_by[-1]}"
        yield Finding("upgrades", Severity.WARNING, detail, hint)


def _steps(machine: Machine, steps: Sequence[Step], explained: set[str], seen: Look) -> Iterator[Finding]:
    """What no finding of its own has told."""
    failing = seen.checks.failing(steps)
    for step in failing:
        if step.name not in explained:
            said = seen.checks.words.get(step.name)
            detail = f"does not hold: {said}" if said else "does not hold any more"
            severity = Severity.WARNING if step.name in MILD else Severity.WRONG
            yield Finding(step.name, severity, detail, _fix(machine, step.name), (step.name,))
    if steps and not failing:
        yield Finding("steps", Severity.OK, f"all {len(steps)} hold")


def _stack(machine: Machine, stack: Stack | None, lock: Mapping[str, str]) -> Iterator[Finding]:
    """Whether it is still the one that the machine was made ready for."""
    if not machine.stack or not lock:
        return
    if stack is None:
        detail = f"{machine.stack} is a file of its own: its steps are not checked"
        yield Finding("stack", Severity.OK, detail, f"cloudrun machines doctor {machine.name} --stack FILE")
    elif machine.market is Market.OWN or lock.get(STACK_HASH) in (None, stack_hash(stack)):
        yield Finding("stack", Severity.OK, machine.stack)
    else:
        detail = f"{machine.stack} has changed since the machine was made ready for it"
        yield Finding("stack", Severity.WARNING, detail, _fix(machine))


def _clock(machine: Machine, seen: Look) -> Finding:
    least_s, most_s = seen.ahead_s
    off_s = least_s if least_s > 0 else min(most_s, 0.0)
    if abs(off_s) <= CLOCK_SLACK_S:
        return Finding("clock", Severity.OK, "right")
    return Finding(
        "clock",
        Severity.WRONG if abs(off_s) > CLOCK_WRONG_S else Severity.WARNING,
        f"{abs(off_s):.0f} s {'fast' if off_s > 0 else 'slow'}, against this computer's",
        f"cloudrun ssh {machine.name} -- sudo timedatectl set-ntp true",
    )


def _disk(machine: Machine, disk: Disk, seen: Look) -> Finding:
    check = "disk" if disk.mount == "/" else f"disk {disk.mount}"
    free = f"{disk.free_bytes / 1e9:.1f} of {disk.size_bytes / 1e9:.1f} GB free"
    if disk.used_percent <= FULL_PERCENT and disk.free_bytes >= LEAST_FREE_BYTES:
        return Finding(check, Severity.OK, free)
    folder, size_bytes = _fullest(seen.folders)
    where = f"; {size_bytes / 1e9:.1f} GB lie in {folder}" if folder else ""
    rooms = [f"cloudrun clean --on {machine.name}"]
    if machine.market is not Market.OWN:
        rooms.append(f"cloudrun machines resize-disk {machine.name} {machine.disk_gb * 2 or 100}")
    if folder and "/.cloudrun" not in folder:
        rooms.reverse()  # what cloudrun may take away is little of it
    severity = Severity.WRONG if disk.free_bytes < LEAST_FREE_BYTES else Severity.WARNING
    return Finding(check, severity, f"nearly full: {free}{where}", ", or ".join(rooms))


def _fullest(folders: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """The deepest folder that still holds most of what lies in the biggest one; "" for none."""
    path, size_bytes = folders[0] if folders else ("", 0)
    for inner, inner_bytes in folders[1:]:
        if inner.startswith(path.rstrip("/") + "/") and inner_bytes >= MOST_OF_IT * size_bytes:
            path, size_bytes = inner, inner_bytes
    return path, size_bytes


def _fix(machine: Machine, *steps: str) -> str:
    what = f"reapplies {', '.join(steps)}" if steps else "brings it up to date"
    return f"cloudrun machines doctor {machine.name} --fix ({what})"


def _look_there(machine: Machine) -> str:
    return f"cloudrun ssh {machine.name} shows why"
