"""What it means that a machine is off, or gone: who took it, and who starts it again."""

from __future__ import annotations

from cloudrun.errors import MachineError, NoCapacity, Preempted
from cloudrun.models import Machine, MachineState


def refuse_ended(machine: Machine) -> None:
    """Raise when the machine cannot be used any more."""
    if machine.state is MachineState.PREEMPTED:
        raise Preempted(
            f"{machine.provider} took {machine.name} back",
            hint="launch another; one that is not --spot is not taken back",
        )
    if machine.state is MachineState.TERMINATED:
        raise MachineError(f"{machine.name} was terminated", hint="cloudrun machines list --all")
    if failed_start(machine):
        raise NoCapacity(
            f"{machine.provider} could not start {machine.name}: {failed_start(machine)}",
            hint=f"try again later: cloudrun machines start {machine.name}; or launch another",
        )
    if is_evicted(machine):
        raise Preempted(
            f"{machine.provider} took {machine.name} back; its disk is kept",
            hint=f"when there is room again: cloudrun machines start {machine.name}",
        )
    if machine.state is MachineState.HALTED:
        raise MachineError(
            f"{machine.name} was switched off from inside and is billed on",
            hint=f"cloudrun stop {machine.name} ends that; machines start {machine.name} brings it back",
        )
    if machine.state is MachineState.STOPPED and not is_paused(machine):
        raise MachineError(
            f"{machine.name} is stopped", hint=f"cloudrun machines start {machine.name}, then try again"
        )


def is_paused(machine: Machine) -> bool:
    """Whether its provider took it with a promise: it starts again, same disk, when there is capacity."""
    return machine.state is MachineState.STOPPED and dict(machine.detail).get("preempted") == "stop"


def is_evicted(machine: Machine) -> bool:
    """Whether its provider took it and kept its disk, without a promise: it starts when it is told to, if
    there is capacity."""
    return machine.state is MachineState.STOPPED and dict(machine.detail).get("preempted") == "deallocate"


def waits_for_start(machine: Machine) -> bool:
    """Whether it is off against its owner's will, its disk kept, and nobody but us starts it again."""
    return is_evicted(machine) or bool(failed_start(machine))


def failed_start(machine: Machine) -> str:
    """The code with which its provider gave up a start that it had accepted; "" for a machine without one."""
    return dict(machine.detail).get("failure", "") if machine.state is MachineState.STOPPED else ""
