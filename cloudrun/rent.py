"""Getting one machine and letting it go, each step safe to repeat after a kill at any point.

Order of things: the machine's row and its open charge are committed, then the provider is
asked (idempotent by token), then the answer is stored. Whoever finds the row later
can always ask the provider for the token again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from cloudrun import charging, images_own
from cloudrun.capacity import REFUSALS
from cloudrun.context import Context, now
from cloudrun.errors import (
    BootFailed,
    CommandFailed,
    ConnectFailed,
    ConnectionLost,
    Credentials,
    HostKeyMismatch,
    ImageNotFound,
    MachineError,
    ProviderError,
    Refused,
)
from cloudrun.events import Note
from cloudrun.keys import host_key_lines
from cloudrun.machine_off import failed_start, is_paused, refuse_ended
from cloudrun.models import Guard, LaunchSpec, Machine, MachineState, Market
from cloudrun.providers.base import Batch, Firewalled, SelfRelease, Stoppable
from cloudrun.provision import note_step
from cloudrun.remote.hostkey import rotate_host_key
from cloudrun.remote.process import arm_guard
from cloudrun.remote.shell import Shell

Answer = TypeVar("Answer")

SEEN = ("state", "address", "ended_at", "detail")  # what a provider tells anew each time
FRESH_POLLS = 4  # a minute: EC2 shows a new machine to other calls within seconds, without a promise
LINE_WAITS_S = (1.0, 4.0)
KNOCK_S, MOST_KNOCK_S = 0.05, 1.0  # between two tries to get a shell
GREETING = "true"
SILENT_S = 5.0  # a refused connection comes back sooner; a firewall says nothing
BOOT_TIMEOUT_S = 900.0  # a p2 with a DLAMI takes minutes; past this something is wrong


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


def await_ready(
    ctx: Context,
    machine: Machine,
    *,
    each_turn: Callable[[], None] = lambda: None,
    just_seen: bool = False,
    greeting: str = GREETING,
) -> tuple[Machine, Shell]:
    """Wait (blocking) until the machine runs and its shell answers; `each_turn` may raise to end the wait.

    just_seen: `machine` is what its provider said a moment ago, and need not say again.
    greeting: the command that its shell answers; CommandFailed where it fails.
    Raises BootFailed after BOOT_TIMEOUT_S, Preempted, or MachineError when it ended meanwhile.
    """
    give_up_at = time.monotonic() + BOOT_TIMEOUT_S
    wait_s = first_wait_s(ctx, machine)
    just_seen = just_seen or (machine.state is MachineState.PENDING and machine.market is not Market.OWN)
    ask_at = 0.0
    while True:
        each_turn()
        if (
            time.monotonic() >= ask_at and not just_seen
        ):  # a running machine is asked for its shell often, its provider seldom
            machine = refresh(ctx, machine)
            refuse_ended(machine)
        just_seen = False
        if machine.state is MachineState.RUNNING and machine.address is not None:
            if ask_at == 0:
                wait_s, ask_at = KNOCK_S, time.monotonic() + ctx.settings.poll_s
            shell = knock(ctx, machine, greeting)
            if shell is not None:
                return machine, shell
        if is_paused(machine):
            give_up_at = time.monotonic() + BOOT_TIMEOUT_S
        if time.monotonic() > give_up_at:
            raise BootFailed(
                f"{machine.name} did not answer within {BOOT_TIMEOUT_S / 60:.0f} minutes",
                hint=f"cloudrun terminate {machine.name}, or look at it with cloudrun machines list",
            )
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, ctx.settings.poll_s if ask_at == 0 else MOST_KNOCK_S)


def first_wait_s(ctx: Context, machine: Machine) -> float:
    """Between the first two questions to its provider; one's own machine is there at once."""
    return KNOCK_S if machine.market is Market.OWN else ctx.settings.poll_s / 3


def knock(ctx: Context, machine: Machine, greeting: str = GREETING) -> Shell | None:
    """The machine's shell if it answers now. Where nothing came back at all, a firewall may stand between:
    this computer's address of now is let in. Raises HostKeyMismatch for a machine whose key was seen before,
    CommandFailed where it answers that the greeting failed.
    """
    shell = ctx.connect(machine)
    began_at = time.monotonic()
    try:
        shell.run(greeting, timeout_s=20)
    except ConnectFailed:
        shell.close()
    except CommandFailed:
        shell.close()
        raise
    except HostKeyMismatch:
        shell.close()
        if machine.provisioned or machine.market is Market.OWN:
            raise  # on a first boot the system shows a key of its own until ours is in place
    else:
        return shell
    if time.monotonic() - began_at > SILENT_S:
        open_access(ctx, machine)
    return None


def reach(ctx: Context, machine: Machine) -> Shell:
    """The machine's shell, connected; the firewall is opened to this computer's address where that helps."""
    refuse_ended(machine)
    shell = ctx.connect(machine)
    try:
        shell.run("true", timeout_s=20)
    except ConnectFailed:
        shell.close()
        machine = refresh(ctx, machine)
        refuse_ended(machine)
        open_access(ctx, machine)
        shell = ctx.connect(machine)
        shell.run("true", timeout_s=20)
    return shell


def open_access(ctx: Context, machine: Machine) -> None:
    """Let this computer's address of now in, where a firewall asks for it. What fails shows on connecting."""
    provider = ctx.provider(machine.provider)
    if isinstance(provider, Firewalled):
        with suppress(ProviderError):
            provider.open_access(machine)


def secure(ctx: Context, machine: Machine, shell: Shell) -> Machine:
    """Replace the host key of the boot payload by one that never left the machine. Idempotent."""
    folder = ctx.settings.keys_dir / machine.name
    if machine.market is Market.OWN or not (folder / "host_key").exists():
        return machine
    try:
        rotate_host_key(shell, folder)
    except MachineError as error:  # the old key still opens it, and nobody else's does
        ctx.on_event(Note(f"{machine.name} keeps the host key that it booted with: {error.message}"))
        return machine
    address = machine.address and replace(machine.address, host_key=host_key_lines(folder))
    return ctx.store.update_machine(machine.name, address=address)


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
            time.sleep(KNOCK_S)
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
            time.sleep(KNOCK_S)


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
