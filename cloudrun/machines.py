"""Machines that stay: launch without a run, start, stop, extend, end. `submit` then uses them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from cloudrun import rent
from cloudrun.attempts import offer_of
from cloudrun.context import Context, now
from cloudrun.errors import (
    CloudrunError,
    ImageNotFound,
    MachineError,
    NoCapacity,
    NotOffered,
    ProviderError,
    Quota,
    Refused,
)
from cloudrun.events import Note, StageEnded, StageStarted
from cloudrun.guard import extended
from cloudrun.locks import holding
from cloudrun.models import Guard, LaunchSpec, Machine, MachineState, Offer, Stack, Stage
from cloudrun.providers.base import Attachable, Stoppable
from cloudrun.provision import provision

GuardMaker = Callable[[Offer], Guard]


def launch(
    ctx: Context,
    *,
    name: str,
    stack: Stack,
    candidates: Sequence[Offer],
    guard_of: GuardMaker,
    disk_gb: int = 0,
) -> Machine:
    """The cheapest candidate that can be had, ready to run (blocking). Nothing is left behind on failure."""
    refusal: ProviderError | None = None
    for offer in candidates:
        spec = LaunchSpec(
            token=f"m-{secrets.token_hex(8)}",
            name=name or ctx.store.claim_name(_base_name(offer)),
            offer=offer,
            stack=stack,
            guard=guard_of(offer),
            disk_gb=disk_gb,
        )
        try:
            with holding(_launch_lock(ctx, spec.token)):
                return _launch_one(ctx, spec)
        except (NoCapacity, Quota, NotOffered, ImageNotFound) as error:
            refusal = error
            ctx.on_event(Note(f"{offer.provider} {offer.region} {offer.type}: {error.message}"))
    raise refusal or Refused("no offer fits", hint="cloudrun offers")


def heal(ctx: Context, machine: Machine) -> Machine:
    """The machine as it is now. A launch that was killed before its answer was stored is found again
    at the provider by its token, or, where the provider knows nothing of it, written off."""
    if machine.id or machine.run_owned or machine.state.gone:
        return rent.refresh(ctx, machine)
    with holding(_launch_lock(ctx, machine.token)) as ours:
        if not ours:
            return machine  # its launch is under way in another process
        found = rent.find_launched(ctx, machine)
        if found.id:
            return rent.refresh(ctx, found)
        rent.forget_launch(ctx, machine.name)
        return replace(machine, state=MachineState.TERMINATED)


def start(ctx: Context, machine: Machine) -> Machine:
    """Start a stopped machine and wait until it answers. A deadline that has passed is dropped."""
    _stoppable(ctx, machine)
    machine = rent.refresh(ctx, machine)
    if machine.state.gone:
        rent.refuse_ended(machine)
    if machine.state is MachineState.STOPPED:
        at = now()
        rent.open_charges(ctx, offer_of(machine), machine=machine.name, run="", at=at)
        machine = rent.start_again(ctx, machine)
    machine, shell = rent.await_ready(ctx, machine)
    guard = Guard(issued_at=now(), deadline_at=machine.deadline_at, idle_minutes=machine.idle_minutes)
    with closing(shell):
        return rent.set_guard(ctx, machine, shell, guard)


def stop(ctx: Context, machine: Machine) -> Machine:
    """Turn it off, disk kept. Idempotent."""
    _stoppable(ctx, machine).stop(machine)
    return rent.refresh(ctx, machine)


def extend(ctx: Context, machine: Machine, *, hours: float) -> Machine:
    """Move the machine's deadline by `hours`; its own guard is told."""
    if hours <= 0:
        raise Refused(f"cannot extend by {hours:g} hours", hint="use a positive number, e.g. 2")
    machine, shell = rent.await_ready(ctx, machine)
    guard = extended(machine.deadline_at, hours=hours, idle_minutes=machine.idle_minutes, now=now())
    with closing(shell):
        return rent.set_guard(ctx, machine, shell, guard)


def attach(ctx: Context, name: str, target: str, *, host_key: str, key_path: str) -> Machine:
    """Make a host that exists already usable under `name`, and check that we get in (blocking)."""
    machine = attachable(ctx).attach(name, target, host_key=host_key, key_path=key_path)
    ctx.store.add_machine(machine)
    try:
        machine, shell = rent.await_ready(ctx, machine)
    except CloudrunError:
        rent.let_go(ctx, machine)
        raise
    shell.close()
    return machine


def attachable(ctx: Context) -> Attachable:
    """The provider of hosts that exist already."""
    provider = ctx.provider("attached")
    assert isinstance(provider, Attachable)  # noqa: S101  # what `attached` is for
    return provider


def _launch_one(ctx: Context, spec: LaunchSpec) -> Machine:
    ctx.store.add_machine(rent.placeholder(spec))
    rent.open_charges(ctx, spec.offer, machine=spec.name, run="", at=spec.guard.issued_at)
    try:
        with _timed(ctx, Stage.LAUNCH):
            machine, shell = rent.await_ready(ctx, rent.launch_machine(ctx, spec))
        with _timed(ctx, Stage.PROVISION), closing(shell):
            versions = provision(shell, machine, spec.stack)
    except MachineError:
        rent.let_go(ctx, ctx.store.find_machine(spec.name))
        raise
    return ctx.store.update_machine(
        spec.name, provisioned=True, stack=spec.stack.name, versions=tuple(sorted(versions.items()))
    )


def _launch_lock(ctx: Context, token: str) -> Path:
    return ctx.settings.home / "launching" / token


@contextmanager
def _timed(ctx: Context, stage: Stage) -> Iterator[None]:
    ctx.on_event(StageStarted(stage))
    tick = time.monotonic()
    yield
    ctx.on_event(StageEnded(stage, time.monotonic() - tick))


def _base_name(offer: Offer) -> str:
    return offer.type.lower().replace(".", "-").replace("_", "-").removeprefix("standard-")


def _stoppable(ctx: Context, machine: Machine) -> Stoppable:
    provider = ctx.provider(machine.provider)
    if not isinstance(provider, Stoppable):
        raise Refused(
            f"{machine.name} ({machine.provider}) can be neither stopped nor started from here",
            hint=f"cloudrun terminate {machine.name} lets it go",
        )
    return provider
