"""Machines that stay: launch without a run, start, stop, extend, end. `submit` then uses them."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from cloudrun import access, budget, charging, machine_off, rent
from cloudrun.attempts import disk_gb_of
from cloudrun.capacity import REFUSALS, wait_for_capacity, where
from cloudrun.context import Context, now
from cloudrun.errors import CloudrunError, MachineError, ProviderError, Refused
from cloudrun.events import Note, StageEnded, StageStarted
from cloudrun.guard import extended
from cloudrun.locks import holding
from cloudrun.models import (
    NO_OPTIONS,
    Guard,
    LaunchOptions,
    LaunchSpec,
    Machine,
    MachineState,
    Market,
    Offer,
    Stack,
    Stage,
)
from cloudrun.providers.base import Attachable, Batch, ResizableDisk, Stoppable
from cloudrun.provision import grow_disk, provision, tune_again
from cloudrun.remote.shell import Shell

GuardMaker = Callable[[Offer], Guard]
TIDY_S = 120.0  # a machine with a GPU takes up to a minute to shut down
MOST_HOURS = 1_000_000.0  # past this it is a slip
MOST_AT_ONCE = 16  # machines made ready side by side: each is one ssh process


def launch(
    ctx: Context,
    *,
    name: str,
    stack: Stack,
    candidates: Sequence[Offer],
    guard_of: GuardMaker,
    disk_gb: int = 0,
    count: int = 1,
    options: LaunchOptions = NO_OPTIONS,
    retry_until_up: bool = False,
) -> list[Machine]:
    """Machines of the cheapest candidate that can be had, ready to run (blocking, until there is capacity
    with retry_until_up). Nothing is left behind on failure."""
    for rounds in itertools.count():
        refusal = None
        for offer in candidates:
            spec = LaunchSpec(
                token=f"m-{secrets.token_hex(8)}",
                name=name or ctx.store.claim_name(_base_name(offer)),
                offer=offer,
                stack=stack,
                guard=guard_of(offer),
                disk_gb=disk_gb_of(offer, disk_gb),
                options=options,
            )
            try:
                with holding(_launch_lock(ctx, spec.token)):
                    return _launch_all(ctx, spec, count)
            except REFUSALS as error:
                refusal = error
                ctx.on_event(Note(f"{where(offer)}: {error.message}"))
        if refusal is None:
            raise Refused("no offer fits", hint="cloudrun offers")
        if not retry_until_up:
            raise refusal
        wait_for_capacity(ctx, rounds)
    raise AssertionError  # the rounds do not end


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
        if rent.is_fresh(ctx, machine):
            return machine
        rent.forget_launch(ctx, machine.name)
        return replace(machine, state=MachineState.TERMINATED)


def start(ctx: Context, machine: Machine) -> Machine:
    """Start a stopped machine and wait until it answers. A deadline that has passed is dropped."""
    _stoppable(ctx, machine)
    machine = rent.refresh(ctx, machine)
    if machine.state.gone:
        machine_off.refuse_ended(machine)
    while dict(machine.detail).get("state") == "stopping":
        time.sleep(access.first_wait_s(ctx, machine))
        machine = rent.refresh(ctx, machine)
    if machine.state in (MachineState.STOPPED, MachineState.HALTED):
        machine = rent.start_again(ctx, machine)
    machine, shell = access.await_ready(ctx, machine)
    guard = Guard(issued_at=now(), deadline_at=machine.deadline_at, idle_minutes=machine.idle_minutes)
    with closing(shell):
        machine = rent.set_guard(ctx, machine, shell, guard)
        tune_again(shell, machine, ctx.settings, on_event=ctx.on_event)
    return machine


def stop(ctx: Context, machine: Machine) -> Machine:
    """Turn it off, disk kept. Idempotent."""
    _stoppable(ctx, machine).stop(machine)
    return rent.refresh(ctx, machine)


def extend(ctx: Context, machine: Machine, *, hours: float) -> Machine:
    """Move the machine's deadline by `hours`; its own guard is told. Raises Refused, and moves nothing, where
    the month's budget does not reach so far."""
    if not 0 < hours <= MOST_HOURS:
        raise Refused(f"cannot extend by {hours:g} hours", hint="use a positive number, e.g. 2")
    _check_budget(ctx, machine, hours)
    machine, shell = access.await_ready(ctx, machine)
    guard = extended(machine.deadline_at, hours=hours, idle_minutes=machine.idle_minutes, now=now())
    with closing(shell):
        return rent.set_guard(ctx, machine, shell, guard)


def _check_budget(ctx: Context, machine: Machine, hours: float) -> None:
    budgets, at = ctx.settings.budgets, now()
    if not budgets or machine.market is Market.OWN:
        return
    until = extended(machine.deadline_at, hours=hours, idle_minutes=None, now=at).deadline_at
    worst = budget.cost_until(ctx.store, machine, until, now=at)
    for line in budget.check(ctx.store, budgets, worst, now=at, without=machine.name):
        ctx.on_event(Note(line))


def attach(ctx: Context, name: str, target: str, *, host_key: str, key_path: str) -> Machine:
    """Make a host that exists already usable under `name`, and check that we get in (blocking)."""
    machine = attachable(ctx).attach(name, target, host_key=host_key, key_path=key_path)
    ctx.store.add_machine(machine)
    try:
        machine, shell = access.await_ready(ctx, machine)
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


def resize_disk(ctx: Context, machine: Machine, disk_gb: int, disk: str = "") -> Machine:
    """Make the machine's disk bigger, and its file system with it (blocking). Idempotent.

    `disk` names one that was attached to it: what is on that one is its owner's to grow. Raises Refused for a
    smaller one, for a provider that cannot do it, and while a run goes on that it would interrupt.
    """
    provider = ctx.provider(machine.provider)
    if not isinstance(provider, ResizableDisk):
        raise Refused(
            f"the disk of {machine.name} ({machine.provider}) cannot be resized from here",
            hint="make room on it: cloudrun ssh " + machine.name,
        )
    machine = rent.refresh(ctx, machine)
    if "resizing" not in dict(machine.detail):  # such a one is off because an earlier try was killed
        machine_off.refuse_ended(machine)
    if not disk and disk_gb < machine.disk_gb:
        raise Refused(
            f"{machine.name} has {machine.disk_gb} GB, and a disk cannot be made smaller",
            hint="launch another machine with --disk-gb",
        )
    if not provider.grows_while_on:
        _refuse_busy(ctx, machine)
    before_gb = machine.disk_gb
    provider.resize_disk(machine, disk_gb, disk)
    if not disk:
        machine = _bill_disk(ctx, machine, disk_gb)
    try:
        _await_disk(ctx, machine, disk_gb, disk)
    except (ProviderError, Refused):
        if not disk:
            _bill_disk(ctx, machine, before_gb)
        raise
    machine, shell = access.await_ready(ctx, machine)
    if machine.market is not Market.OWN:
        charging.open_running(ctx, machine, now())  # it may have been off meanwhile
    with closing(shell):
        if not disk:
            grow_disk(shell)
    return machine


def _bill_disk(ctx: Context, machine: Machine, disk_gb: int) -> Machine:
    if disk_gb == machine.disk_gb:
        return machine
    charging.change_disk(ctx, machine, disk_gb, now())
    return ctx.store.update_machine(machine.name, disk_gb=disk_gb)


def _await_disk(ctx: Context, machine: Machine, disk_gb: int, disk: str) -> None:
    provider = ctx.provider(machine.provider)
    assert isinstance(provider, ResizableDisk)  # noqa: S101  # the caller asked
    wait_s = rent.SOON_S
    while not provider.disk_ready(machine, disk_gb, disk):
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.5, ctx.settings.poll_s)


def _refuse_busy(ctx: Context, machine: Machine) -> None:
    active = ctx.store.list_runs(machine=machine.name, active=True)
    if active:
        raise Refused(
            f"{machine.name} goes off and on while its disk grows, and {active[0].id} runs there",
            hint=f"wait for it, or: cloudrun cancel {active[0].id}",
        )


def terminate(ctx: Context, machines: Sequence[Machine]) -> list[Machine]:
    """End them all, in as few requests as each provider needs. Idempotent."""
    ended: list[Machine] = []
    for name in dict.fromkeys(machine.provider for machine in machines):
        ours = [machine for machine in machines if machine.provider == name]
        provider = ctx.provider(name)
        known = [machine for machine in ours if machine.id]
        if len(known) < 2 or not isinstance(provider, Batch):
            ended += [rent.let_go(ctx, machine) for machine in ours]
            continue
        provider.terminate_many(known)  # all are known there: they were described, or launched long ago
        pairs = zip(known, provider.describe_many(known), strict=True)
        ended += [rent.note_ended(ctx, machine, seen) for machine, seen in pairs]
        ended += [rent.let_go(ctx, machine) for machine in ours if not machine.id]
    _tidy(ctx, ended)
    return ended


def _tidy(ctx: Context, ended: Sequence[Machine]) -> None:
    """With the last machine goes what all shared (security groups). A provider lets that go only when the
    machine is off for good: that is waited for; an interrupted wait leaves it to the next time."""
    rented = [machine for machine in ended if machine.id and machine.market is not Market.OWN]
    for name in dict.fromkeys(machine.provider for machine in rented):
        if any(machine.provider == name for machine in ctx.store.list_machines()):
            continue
        last = next(machine for machine in reversed(rented) if machine.provider == name)
        provider = ctx.provider(name)
        give_up_at = time.monotonic() + TIDY_S
        while dict(provider.describe(last).detail).get("state") == "shutting-down":
            if time.monotonic() > give_up_at:
                break
            time.sleep(access.first_wait_s(ctx, last))
        with suppress(ProviderError):
            provider.terminate(last)


def refresh_all(ctx: Context, machines: Sequence[Machine]) -> list[Machine]:
    """As their providers see them now: one question for all machines of a provider that can answer so."""
    seen: dict[str, Machine] = {}
    for name in dict.fromkeys(machine.provider for machine in machines):
        ours = [machine for machine in machines if machine.provider == name]
        live = [machine for machine in ours if machine.id and not machine.state.gone]
        provider = ctx.provider(name)
        if len(live) > 1 and isinstance(provider, Batch):
            pairs = zip(live, provider.describe_many(live), strict=True)
            seen |= {machine.name: rent.note_seen(ctx, machine, now_seen) for machine, now_seen in pairs}
        seen |= {
            each.name: _seen(ctx, each) for each in ours if each.name not in seen and not each.state.gone
        }
    return [machine if machine.state.gone else seen[machine.name] for machine in machines]


def _seen(ctx: Context, machine: Machine) -> Machine:
    """As heal; a launch that its provider took back is shown as what it is: ended."""
    try:
        return heal(ctx, machine)
    except REFUSALS:
        return ctx.store.get_machine(machine.name) or machine


def _launch_all(ctx: Context, spec: LaunchSpec, count: int) -> list[Machine]:
    """Rows and charges first, then one request, then all are waited for and made ready at once."""
    batch = count > 1 and isinstance(ctx.provider(spec.offer.provider), Batch)
    specs = [spec] if count == 1 else [_numbered(spec, number + 1, batch=batch) for number in range(count)]
    for each in specs:
        ctx.store.add_machine(rent.placeholder(each))
        charging.open_rent(
            ctx, each.offer, disk_gb=each.disk_gb, machine=each.name, run="", at=each.guard.issued_at
        )
    try:
        if batch:
            machines = rent.launch_machines(ctx, spec, [each.name for each in specs])
        else:
            machines = [rent.launch_machine(ctx, each) for each in specs]
        return _make_ready(ctx, machines, spec.stack)
    except (MachineError, ProviderError, Refused):
        terminate(ctx, [ctx.store.find_machine(each.name) for each in specs])
        raise


def _numbered(spec: LaunchSpec, number: int, *, batch: bool) -> LaunchSpec:
    """One of many: what is asked for in one request shares its token."""
    token = spec.token if batch else f"{spec.token}-{number}"
    return replace(spec, name=f"{spec.name}-{number}", token=token)


def _make_ready(ctx: Context, machines: Sequence[Machine], stack: Stack) -> list[Machine]:
    """Wait for all and provision all, side by side; the first failure counts."""
    with _timed(ctx, Stage.LAUNCH):
        several = len(machines) > 1
        machines = _await_running(ctx, machines) if several else machines
        with ThreadPoolExecutor(max_workers=min(MOST_AT_ONCE, len(machines))) as pool:
            ready = list(
                pool.map(lambda machine: access.await_ready(ctx, machine, just_seen=several), machines)
            )
    with _timed(ctx, Stage.PROVISION), ThreadPoolExecutor(min(MOST_AT_ONCE, len(ready))) as pool:
        return list(pool.map(lambda pair: _provision(ctx, pair[0], pair[1], stack), ready))


def _await_running(ctx: Context, machines: Sequence[Machine]) -> list[Machine]:
    """Until none is pending any more, with one question a turn for all of them."""
    wait_s = access.first_wait_s(ctx, machines[0])
    while True:
        time.sleep(wait_s)  # they were asked for a moment ago
        machines = refresh_all(ctx, machines)
        for machine in machines:
            machine_off.refuse_ended(machine)
        if all(machine.state is not MachineState.PENDING for machine in machines):
            return list(machines)
        wait_s = min(wait_s * 2, ctx.settings.poll_s)


def _provision(ctx: Context, machine: Machine, shell: Shell, stack: Stack) -> Machine:
    with closing(shell):
        machine = access.secure(ctx, machine, shell)
        versions = provision(shell, machine, stack, ctx.settings, on_event=ctx.on_event)
    return ctx.store.update_machine(
        machine.name, provisioned=True, stack=stack.name, versions=tuple(sorted(versions.items()))
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
