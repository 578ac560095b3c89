"""Getting one machine and letting it go, each step safe to repeat after a kill at any point.

Order of things: the machine's row and its open charge are committed, then the provider is
asked (idempotent by token), then the answer is stored. Whoever finds the row later
can always ask the provider for the token again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from cloudrun import ledger
from cloudrun.context import Context, now
from cloudrun.errors import BootFailed, ConnectFailed, MachineError, Preempted, ProviderError
from cloudrun.models import Guard, LaunchSpec, Machine, MachineState, Market, Offer
from cloudrun.providers.base import SelfRelease, Stoppable
from cloudrun.remote.process import arm_guard
from cloudrun.remote.shell import Shell

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
        gpu=offer.gpu,
        gpu_count=offer.gpu_count,
        gpu_memory_gib=offer.gpu_memory_gib,
        gpu_capability=offer.gpu_capability,
    )


def launch_machine(ctx: Context, spec: LaunchSpec) -> Machine:
    """Ask the provider and store its answer. The row and the charge stand already; a refusal voids both."""
    provider = ctx.provider(spec.offer.provider)
    try:
        image = provider.find_image(spec.stack, spec.offer.region)
        machine = provider.launch(replace(spec, image=image))
    except ProviderError:
        forget_launch(ctx, spec.name)
        raise
    return ctx.store.update_machine(
        spec.name,
        id=machine.id,
        state=machine.state,
        zone=machine.zone,
        address=machine.address,
        detail=machine.detail,
    )


def forget_launch(ctx: Context, name: str) -> None:
    """The provider never gave the machine: it costs nothing and is no more. Idempotent."""
    for charge in ctx.store.list_charges(machine=name, open_only=True):
        if charge.id is not None:
            ctx.store.void_charge(charge.id)
    if ctx.store.get_machine(name) is not None:
        ctx.store.update_machine(name, state=MachineState.TERMINATED, ended_at=now())


def refresh(ctx: Context, machine: Machine) -> Machine:
    """The machine as its provider sees it now, stored; an ended one has its charges closed."""
    if not machine.id:
        return machine
    seen = ctx.provider(machine.provider).describe(machine)
    if (seen.state, seen.address, seen.ended_at) != (machine.state, machine.address, machine.ended_at):
        machine = ctx.store.update_machine(
            machine.name, state=seen.state, address=seen.address, ended_at=seen.ended_at
        )
    if machine.state.gone or machine.state is MachineState.STOPPED:
        close_charges(ctx, machine, machine.ended_at or now())
    return machine


def await_ready(
    ctx: Context, machine: Machine, *, each_turn: Callable[[], None] = lambda: None
) -> tuple[Machine, Shell]:
    """Wait (blocking) until the machine runs and its shell answers; `each_turn` may raise to end the wait.

    Raises BootFailed after BOOT_TIMEOUT_S, Preempted, or MachineError when it ended meanwhile.
    """
    give_up_at = time.monotonic() + BOOT_TIMEOUT_S
    wait_s = 0.05
    while True:
        each_turn()
        machine = refresh(ctx, machine)
        refuse_ended(machine)
        if machine.state is MachineState.RUNNING and machine.address is not None:
            shell = ctx.connect(machine)
            try:
                shell.run("true", timeout_s=20)
            except ConnectFailed:
                shell.close()
            else:
                return machine, shell
        if time.monotonic() > give_up_at:
            raise BootFailed(
                f"{machine.name} did not answer within {BOOT_TIMEOUT_S / 60:.0f} minutes",
                hint=f"cloudrun terminate {machine.name}, or look at it with cloudrun machines list",
            )
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.5, ctx.settings.poll_s)


def wake(ctx: Context, machine: Machine) -> Machine:
    """Start a stopped machine that nobody bills; others are left for the user to start."""
    machine = refresh(ctx, machine)
    if machine.state is not MachineState.STOPPED or machine.market is not Market.OWN:
        return machine
    return start_again(ctx, machine)


def start_again(ctx: Context, machine: Machine) -> Machine:
    """Have a stopped machine started. A deadline that has passed would end it again: it is dropped."""
    provider = ctx.provider(machine.provider)
    if not isinstance(provider, Stoppable):
        return machine
    deadline = machine.deadline_at if machine.deadline_at and machine.deadline_at > now() else None
    if isinstance(provider, SelfRelease):
        idle = machine.idle_minutes
        provider.set_guard(machine, Guard(issued_at=now(), deadline_at=deadline, idle_minutes=idle))
    seen = provider.start(machine)
    return ctx.store.update_machine(
        machine.name, state=seen.state, address=seen.address, ended_at=None, deadline_at=deadline
    )


def refuse_ended(machine: Machine) -> None:
    """Raise when the machine cannot be used any more."""
    if machine.state is MachineState.PREEMPTED:
        raise Preempted(f"{machine.provider} took {machine.name} back")
    if machine.state is MachineState.TERMINATED:
        raise MachineError(f"{machine.name} was terminated", hint="cloudrun machines list --all")
    if machine.state is MachineState.STOPPED:
        raise MachineError(
            f"{machine.name} is stopped", hint=f"cloudrun machines start {machine.name}, then try again"
        )


def let_go(ctx: Context, machine: Machine) -> Machine:
    """Terminate at the provider, then close what it cost at the provider's own stop time. Idempotent."""
    if not machine.id:
        machine = find_launched(ctx, machine)
    if not machine.id:
        forget_launch(ctx, machine.name)
        return replace(machine, state=MachineState.TERMINATED)
    provider = ctx.provider(machine.provider)
    provider.terminate(machine)
    ended_at = machine.ended_at or provider.describe(machine).ended_at or now()
    close_charges(ctx, machine, ended_at)
    return ctx.store.update_machine(machine.name, state=MachineState.TERMINATED, ended_at=ended_at)


def set_guard(ctx: Context, machine: Machine, shell: Shell, guard: Guard) -> Machine:
    """Tell the machine's own guard, the provider where it keeps one, and the store."""
    provider = ctx.provider(machine.provider)
    if isinstance(provider, SelfRelease):
        arm_guard(shell, guard, provider.release_command(machine))
        provider.set_guard(machine, guard)
    return ctx.store.update_machine(
        machine.name, deadline_at=guard.deadline_at, idle_minutes=guard.idle_minutes
    )


def open_charges(ctx: Context, offer: Offer, *, machine: str, run: str, at: datetime) -> None:
    for charge in ledger.open_compute(offer, machine=machine, run=run, at=at):
        ctx.store.add_charge(charge)


def close_charges(ctx: Context, machine: Machine, at: datetime) -> None:
    for charge in ctx.store.list_charges(machine=machine.name, open_only=True):
        if charge.id is not None:
            ctx.store.close_charge(charge.id, at)


def find_launched(ctx: Context, machine: Machine) -> Machine:
    """A launch whose answer was never stored: does the provider have a machine of that token?"""
    for seen in ctx.provider(machine.provider).list_machines():
        if seen.token == machine.token and not seen.state.gone:
            return ctx.store.update_machine(machine.name, id=seen.id, address=seen.address, state=seen.state)
    return machine
