"""Where a run goes: a machine that exists, this computer, or a new machine of a type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudrun import catalog
from cloudrun.errors import Ambiguous, NotFound, Refused
from cloudrun.models import Machine, MachineState, Market
from cloudrun.words import nearest

LOCAL = "local"
RENTED = (Market.SPOT, Market.ON_DEMAND)


@dataclass(frozen=True)
class Target:
    """A machine that exists, or (provider, type) pairs to launch one of."""

    reason: str
    machine: Machine | None = None
    types: tuple[tuple[str, str], ...] = ()

    @property
    def local(self) -> bool:
        return any(provider == LOCAL for provider, _ in self.types)


def find_target(machines: Sequence[Machine], *, on: str, type: str, market: Market | None) -> Target:
    """The machine named by `on`, a new one of a type, the one that is ready, or this computer.

    Raises Refused, NotFound or Ambiguous for what cannot be meant.
    """
    if on and type:
        raise Refused(f"both a machine ({on}) and a type ({type}) are named", hint="name one of them")
    machine = _find_machine(machines, on) if on and on != LOCAL else None
    if machine:
        return Target(f"{machine.name}: asked for by --on", _ready(machine))
    wanted = on or type
    if wanted:
        types = tuple(pair for name in wanted.split(",") for pair in _resolve(name.strip(), machines))
        names = " or ".join(dict.fromkeys(name for _, name in types))
        reason = "this computer: asked for" if types == ((LOCAL, LOCAL),) else f"a new {names}: asked for"
        return Target(reason, types=_rentable(types, market))
    ready = [each for each in machines if each.state is MachineState.RUNNING and not each.run_owned]
    if market in RENTED:
        raise Refused(
            f"--{market} needs a type to rent", hint="for example: cloudrun submit JOB g4dn.xlarge --spot"
        )
    if len(ready) == 1:
        return Target(f"{ready[0].name}: the one machine that is ready", ready[0])
    count = "no machine is" if not ready else f"{len(ready)} machines are"
    return Target(f"this computer: {count} ready, and none was named", types=((LOCAL, LOCAL),))


def _find_machine(machines: Sequence[Machine], name: str) -> Machine | None:
    """The machine of that name, id or unique prefix of a name."""
    for machine in machines:
        if name in (machine.name, machine.id):
            return machine
    found = [machine for machine in machines if machine.name.startswith(name)]
    if len(found) > 1:
        raise Ambiguous(f"{name!r} fits {len(found)} machines", hint=", ".join(each.name for each in found))
    return found[0] if found else None


def _ready(machine: Machine) -> Machine:
    if machine.state is MachineState.RUNNING:
        return machine
    hint = (
        f"cloudrun machines start {machine.name}" if machine.state is MachineState.STOPPED else "wait for it"
    )
    raise Refused(f"machine {machine.name} is {machine.state}", hint=hint)


def _resolve(text: str, machines: Sequence[Machine]) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(catalog.resolve_type(text))
    except NotFound as error:
        near = nearest(text, [machine.name for machine in machines], most=0)
        hint = f"{near} {error.hint}".strip()
        raise NotFound(f"no machine and no machine type {text!r}", hint=hint) from error


def _rentable(types: tuple[tuple[str, str], ...], market: Market | None) -> tuple[tuple[str, str], ...]:
    if market in RENTED and types == ((LOCAL, LOCAL),):
        raise Refused(
            f"this computer is not rented, so --{market} means nothing there", hint=f"drop --{market}"
        )
    return types
