"""Stage 7: a fresh machine becomes a ready one, and says what is really on it."""

from __future__ import annotations

from collections.abc import Mapping

from cloudrun import assets
from cloudrun.errors import StepFailed
from cloudrun.models import Machine, Market, Stack
from cloudrun.remote.process import probe
from cloudrun.remote.shell import Shell

GROW_TIMEOUT_S = 600.0  # ext4 grows terabytes in seconds; a busy disk may take longer


def provision(shell: Shell, machine: Machine, stack: Stack) -> Mapping[str, str]:
    """Read back the versions that are really there and hold them against the stack. Blocking, idempotent.

    Raises StepFailed when a framework of the stack is missing: a run would only find out later.
    """
    names = tuple(name for name, _pin in stack.frameworks)
    versions = probe(shell, names)
    missing = [name for name in names if not versions.get(name)]
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
    step = assets.provisioning_dir() / "steps" / "10-grow-disk.sh"
    done = shell.run("sh -s apply", input=step.read_bytes(), timeout_s=GROW_TIMEOUT_S, check=False)
    if not done:
        raise StepFailed(
            f"the file system did not grow: {done.stderr.decode('utf-8', 'replace').strip()}",
            hint="the disk itself has its new size; grow partition and file system by hand",
        )


def _how_to_install(machine: Machine, missing: list[str]) -> str:
    if machine.provider == "local":
        return "pip install 'cloudrun[local]' beside cloudrun, then try again"
    if machine.market is Market.OWN:
        return f"cloudrun ssh {machine.name} -- python3 -m pip install {' '.join(missing)}"
    return "cloudrun images list"
