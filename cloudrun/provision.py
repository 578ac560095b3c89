"""Stage 7: a fresh machine becomes a ready one, and says what is really on it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from cloudrun import assets
from cloudrun.errors import StepFailed
from cloudrun.models import Machine, Market, Stack
from cloudrun.remote.process import probe
from cloudrun.remote.shell import Shell

GROW_TIMEOUT_S = 600.0  # ext4 grows terabytes in seconds; a busy disk may take longer
INSTALL_TIMEOUT_S = 1800.0  # PyTorch with its CUDA libraries is 3 GB of wheels
TAIL_CHARS = 500  # of what a step printed, in its error


def provision(shell: Shell, machine: Machine, stack: Stack) -> Mapping[str, str]:
    """Make the machine hold the stack's frameworks, and read back what is really there. Blocking (minutes
    where something is missing on a rented machine), idempotent.

    Raises StepFailed when a framework of the stack is missing in the end: a run would only find out later.
    """
    names = tuple(name for name, _pin in stack.frameworks)
    versions = probe(shell, names)
    if _missing(names, versions) and machine.market is not Market.OWN:
        _install(shell, stack)
        versions = probe(shell, names)
    missing = _missing(names, versions)
    if missing:
        raise StepFailed(
            f"{machine.name} has no {', '.join(missing)}, which stack {stack.name} needs",
            hint=_how_to_install(machine, missing),
        )
    return versions


def grow_disk(shell: Shell) -> None:
    """Let the partition and file system of / take in the whole disk. Blocking, idempotent, online.

    Raises StepFailed, with what the step printed, for a layout that it does not know.
    """
    hint = "the disk itself has its new size; grow partition and file system by hand"
    _run_step(shell, "10-grow-disk.sh", {}, timeout_s=GROW_TIMEOUT_S, hint=hint)


def _install(shell: Shell, stack: Stack) -> None:
    pins = " ".join(f"{name}=={pin}" if pin else name for name, pin in stack.frameworks)
    hint = "cloudrun launch --stack none takes the machine as it is"
    _run_step(shell, "20-frameworks.sh", {"FRAMEWORKS": pins}, timeout_s=INSTALL_TIMEOUT_S, hint=hint)


def _run_step(shell: Shell, name: str, parameters: Mapping[str, str], *, timeout_s: float, hint: str) -> None:
    """Apply one script of provisioning/steps over the shell."""
    step = assets.provisioning_dir() / "steps" / name
    given = " ".join(f"{key}={shlex.quote(value)}" for key, value in parameters.items())
    done = shell.run(
        f"{given} sh -s apply".strip(), input=step.read_bytes(), timeout_s=timeout_s, check=False
    )
    if not done:
        said = done.stderr.decode("utf-8", "replace").strip()[-TAIL_CHARS:]
        raise StepFailed(f"step {name} failed: {said}", hint=hint)


def _missing(names: Sequence[str], versions: Mapping[str, str]) -> list[str]:
    return [name for name in names if not versions.get(name)]


def _how_to_install(machine: Machine, missing: list[str]) -> str:
    if machine.provider == "local":
        return "pip install 'cloudrun[local]' beside cloudrun, then try again"
    if machine.market is Market.OWN:
        return f"cloudrun ssh {machine.name} -- python3 -m pip install {' '.join(missing)}"
    return f"cloudrun ssh {machine.name} shows why; launch --stack none takes the machine as it is"
