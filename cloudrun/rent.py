"""Getting one machine and letting it go, each step safe to repeat after a kill at any point.

Order of things: the machine's row and its open charge are committed, then the provider is
asked (idempotent by token), then the answer is stored. Whoever finds the row later
can always ask the provider for the token again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from cloudrun import charging, images_own
from cloudrun.capacity import REFUSALS
from cloudrun.context import Context, now
from cloudrun.errors import (
    ConnectionLost,
    Credentials,
    ImageNotFound,
    ProviderError,
    Refused,
)
from cloudrun.events import Note
from cloudrun.machine_off import failed_start
from cloudrun.models import Guard, LaunchSpec, Machine, MachineState, Market
from cloudrun.providers.base import Batch, SelfRelease, Stoppable
from cloudrun.provision import note_step
from cloudrun.remote.process import arm_guard
from cloudrun.remote.shell import Shell

Answer = TypeVar("Answer")

SEEN = ("state", "address", "ended_at", "detail")  # what a provider tells anew each time
FRESH_POLLS = 4  # a minute: EC2 shows a new machine to other calls within seconds, without a promise
LINE_WAITS_S = (1.0, 4.0)
SOON_S = 0.05  # the first wait for what may come at once


def placeholder(spec: LaunchSpec) -> Machine:
    """The row that stands in the store before the provider was asked."""
    offer = spec.offer
    return Machine(
        id="",
        name=spec.name,
        provider=offer.provider,
        region=offer.region,
        zone=offer.zone,
        type=offer.type,
        market=offer.market,
        state=MachineState.PENDING,
        token=spec.token,
        stack=spec.stack.name,
        price_per_hour_usd=offer.price_per_hour_usd,
        launched_at=spec.guard.issued_at,
        deadline_at=spec.guard.deadline_at,
        idle_minutes=spec.guard.idle_minutes,
        run_owned=spec.run_owned,
        disk_gb=spec.disk_gb,
        gpu=offer.gpu,
        gpu_count=offer.gpu_count,
        gpu_memory_gib=offer.gpu_memory_gib,
        gpu_capability=offer.gpu_capability,
    )


def launch_machine(ctx: Context, spec: LaunchSpec, *, repeat: bool = False) -> Machine:
    """Ask the provider and store its answer. The row and the charge stand already; a refusal voids both.

    repeat: an earlier process may have asked. Then only a refusal of the machine itself is the last word:
    missing credentials, say, tell nothing about what that process got.
    """
    provider = ctx.provider(spec.offer.provider)
    [machine] = _ask(ctx, spec, [spec.name], lambda whole: [provider.launch(whole)], repeat=repeat)
    return machine


def launch_machines(ctx: Context, spec: LaunchSpec, names: Sequence[str]) -> list[Machine]:
    """As launch_machine, for machines NAME-1 to NAME-N of one kind, whose rows stand already: one request."""
    provider = ctx.provider(spec.offer.provider)
    assert isinstance(provider, Batch)  # noqa: S101  # the caller asked
    return _ask(ctx, spec, names, lambda whole: provider.launch_many(whole, len(names)))


def _ask(
    ctx: Context,
    spec: LaunchSpec,
    names: Sequence[str],
    launch: Callable[[LaunchSpec], list[Machine]],
    *,
    repeat: bool = False,
) -> list[Machine]:
    """Find the image, launch, and store the answer under the names; a refusal voids their rows."""
    try:
        machines = _from_own_image(ctx, spec, names, launch) or _from_base_image(ctx, spec, launch)
    except (ProviderError, Refused) as error:
        if not repeat or isinstance(error, (*REFUSALS, Refused)):
            for name in names:
                forget_launch(ctx, name)
        raise
    return [_note_launched(ctx, machine) for machine in machines]


def _from_own_image(
    ctx: Context, spec: LaunchSpec, names: Sequence[str], launch: Callable[[LaunchSpec], list[Machine]]
) -> list[Machine]:
    """Machines whose disk has the stack on it already; none where there is no such image (any more)."""
    image = images_own.find(ctx, spec)
    if not image:
        return []
    ctx.on_event(Note(f"{spec.name} begins with an image of yours: {image.rpartition('/')[2]}"))
    try:
        machines = _insist(ctx, lambda: launch(replace(spec, image=image)))
        for name in names:
            note_step(ctx.settings, name, f"begins with image {image}")
        return machines
    except ImageNotFound as error:
        ctx.on_event(Note(f"the published image instead: {error.message}"))
        return []


def _from_base_image(
    ctx: Context, spec: LaunchSpec, launch: Callable[[LaunchSpec], list[Machine]]
) -> list[Machine]:
    image = ctx.provider(spec.offer.provider).find_image(spec.stack, spec.offer.region)
    return _insist(ctx, lambda: launch(replace(spec, image=image)))


def forget_launch(ctx: Context, name: str) -> None:
    """The provider never gave the machine: it costs nothing and is no more. Idempotent."""
    charging.void_launch(ctx, name)
    shutil.rmtree(ctx.settings.keys_dir / name, ignore_errors=True)
    if ctx.store.get_machine(name) is not None:
        ctx.store.update_machine(name, state=MachineState.TERMINATED, ended_at=now())


def refresh(ctx: Context, machine: Machine) -> Machine:
    """The machine as its provider sees it now, stored; an ended one has its charges closed."""
    if not machine.id:
        return machine
    try:
        seen = ctx.provider(machine.provider).describe(machine)
    except REFUSALS:  # the launch was accepted, and refused later (Azure): nothing of it may stay
        terminate(ctx, machine)
        forget_launch(ctx, machine.name)
        raise
    return note_seen(ctx, machine, seen)


def note_seen(ctx: Context, machine: Machine, seen: Machine) -> Machine:
    """Store what the provider said of a machine; what an ended one cost is closed at the provider's time."""
    before = machine
    changed = {name: getattr(seen, name) for name in SEEN if getattr(seen, name) != getattr(machine, name)}
    if changed:
        machine = ctx.store.update_machine(machine.name, **changed)
    if failed_start(machine):
        charging.void_running(ctx, machine)
    if before.state is MachineState.STOPPED and machine.state in (MachineState.PENDING, MachineState.RUNNING):
        charging.note_comeback(ctx, machine, _started_at(before, seen))
    if machine.state.gone or machine.state is MachineState.STOPPED:
        charging.close_ended(ctx, machine, machine.ended_at or now())
    return machine


def _started_at(before: Machine, seen: Machine) -> datetime:
    """When a machine that was off came back: EC2 names the time of each start, Azure that of the first."""
    told, off_at = seen.launched_at, before.ended_at or before.launched_at
    return told if told is not None and (off_at is None or told > off_at) else now()


def wake(ctx: Context, machine: Machine) -> Machine:
    """Start a stopped machine that nobody bills; others are left for the user to start."""
    machine = refresh(ctx, machine)
    if machine.state is not MachineState.STOPPED or machine.market is not Market.OWN:
        return machine
    return start_again(ctx, machine)


def start_again(ctx: Context, machine: Machine) -> Machine:
    """Have a stopped machine started, its charges opened before. A deadline that has passed would end it
    again: it is dropped. Raises NoCapacity and other refusals, and Refused where the month's budget does not
    reach; then nothing is charged."""
    provider = ctx.provider(machine.provider)
    if not isinstance(provider, Stoppable):
        return machine
    charging.check_start(ctx, machine)
    charging.open_running(ctx, machine, now())
    deadline = machine.deadline_at if machine.deadline_at and machine.deadline_at > now() else None
    if isinstance(provider, SelfRelease):
        idle = machine.idle_minutes
        provider.set_guard(machine, Guard(issued_at=now(), deadline_at=deadline, idle_minutes=idle))
    try:
        seen = provider.start(machine)
    except REFUSALS:
        if machine.state is MachineState.STOPPED:  # a halted one is billed all the time
            charging.void_running(ctx, machine)
        raise
    return ctx.store.update_machine(
        machine.name, state=seen.state, address=seen.address, ended_at=None, deadline_at=deadline
    )


def let_go(ctx: Context, machine: Machine) -> Machine:
    """Terminate at the provider, then close what it cost at the provider's own stop time. Idempotent."""
    if not machine.id and machine.state.gone:
        return machine  # it was refused
    while not machine.id:
        machine = find_launched(ctx, machine)
        if not machine.id and not is_fresh(ctx, machine):
            forget_launch(ctx, machine.name)
            return replace(machine, state=MachineState.TERMINATED)
        if not machine.id:
            time.sleep(SOON_S)
    provider = ctx.provider(machine.provider)
    terminate(ctx, machine)
    try:
        seen = provider.describe(machine)
    except REFUSALS:  # a launch that was refused late
        seen = machine
    return note_ended(ctx, machine, seen)


def terminate(ctx: Context, machine: Machine) -> None:
    """At the provider; again where it does not know a machine yet that it gave us a moment ago."""
    provider = ctx.provider(machine.provider)
    while True:
        try:
            return provider.terminate(machine)
        except Credentials:
            raise
        except ProviderError:
            if not is_fresh(ctx, machine):
                raise
            time.sleep(SOON_S)


def note_ended(ctx: Context, machine: Machine, seen: Machine) -> Machine:
    """Store that a machine was terminated, at the provider's own time; what it cost is closed."""
    ended_at = machine.ended_at if machine.state.gone else None
    ended = replace(machine, state=MachineState.TERMINATED, ended_at=ended_at or seen.ended_at or now())
    charging.close_ended(ctx, ended, ended.ended_at or now())
    return ctx.store.update_machine(machine.name, state=ended.state, ended_at=ended.ended_at)


def set_guard(ctx: Context, machine: Machine, shell: Shell, guard: Guard) -> Machine:
    """Tell the machine's own guard, the provider where it keeps one, and the store."""
    provider = ctx.provider(machine.provider)
    if isinstance(provider, SelfRelease):
        release, notices = provider.release_command(machine), provider.notices(machine)
        arm_guard(shell, guard, release, notices=notices)
        provider.set_guard(machine, guard)
    return ctx.store.update_machine(
        machine.name, deadline_at=guard.deadline_at, idle_minutes=guard.idle_minutes
    )


def find_launched(ctx: Context, machine: Machine) -> Machine:
    """A launch whose answer was never stored: does the provider have a machine of that token?"""
    for seen in ctx.provider(machine.provider).list_machines():
        if (seen.token, seen.name) == (machine.token, machine.name) and not seen.state.gone:
            return _note_launched(ctx, seen)
    return machine


def is_fresh(ctx: Context, machine: Machine) -> bool:
    """Whether its launch is so young that its provider may not show it yet: it must not be written off."""
    if machine.market is Market.OWN or machine.launched_at is None:
        return False
    return (now() - machine.launched_at).total_seconds() < FRESH_POLLS * ctx.settings.poll_s


def _insist(ctx: Context, ask: Callable[[], Answer]) -> Answer:
    """Ask again when the line broke: the same token gets the same machines, whether the first call came
    through or not."""
    for wait_s in LINE_WAITS_S:
        try:
            return ask()
        except ConnectionLost as loss:
            ctx.on_event(Note(f"{loss.message}; asking again"))
            time.sleep(min(wait_s, ctx.settings.poll_s))
    return ask()


def _note_launched(ctx: Context, machine: Machine) -> Machine:
    return ctx.store.update_machine(
        machine.name,
        id=machine.id,
        state=machine.state,
        zone=machine.zone,
        address=machine.address,
        detail=machine.detail,
    )
