"""What there is at every provider, against what the store knows: what it is for, costs, and what is wrong.

What carries our tags is looked at, and mended. What belongs to somebody else of the same account is shown to
who asks for it, and never touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from cloudrun import adopt, catalog, doctor, images_charged, machines, rent
from cloudrun.audit_buckets import bucket_items
from cloudrun.audit_home import home_items
from cloudrun.audit_item import HOME, Cure, Item
from cloudrun.catalog.prices import HOURS_PER_MONTH
from cloudrun.context import Context
from cloudrun.errors import CloudrunError, ProviderError
from cloudrun.events import Note
from cloudrun.models import Machine, MachineState, Market, Run
from cloudrun.providers.base import Leftover, Leftovers, Shared, Stoppable

MOST_AT_ONCE = 8
FREE_FOR_S = 120.0  # what a machine that is ending still needs goes within this


def audit(
    ctx: Context, providers: Sequence[str], *, home: bool = True, everything: bool = False
) -> list[Item]:
    """Everything of ours at these providers (blocking; asks each one, and each running machine for its
    guard); with `home` also what belongs to nothing at home and in the buckets that are known; with
    `everything` last what others have. A provider that cannot be asked is named in a note."""
    found: list[Item] = []
    foreign: list[Item] = []
    for name in providers:
        try:
            found += _provider_items(ctx, name)
            foreign += _foreign_items(ctx, name) if everything else []
        except ProviderError as error:
            ctx.on_event(Note(f"{name} was not asked: {error.message}"))
    if home:
        found += [*home_items(ctx.settings), *bucket_items(ctx.settings, on_event=ctx.on_event)]
    return found + foreign


def fix(ctx: Context, items: Sequence[Item]) -> Iterator[tuple[Item, str]]:
    """Do what the items' cures say (blocking); each with "" or why it could not be done."""
    for cure in Cure:
        waiting = [item for item in items if item.cure is cure]
        if cure is Cure.FREE:
            yield from _free_all(ctx, waiting)
            continue
        for item in waiting:
            yield item, _tried(lambda item=item: _apply(ctx, item))  # type: ignore[misc]


def _provider_items(ctx: Context, name: str) -> list[Item]:
    provider = ctx.provider(name)
    there = [machine for machine in provider.list_machines() if not machine.state.gone]
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        found = list(pool.map(lambda machine: _machine_item(ctx, machine), there))
    images_charged.look_after(ctx, name)
    if isinstance(provider, Leftovers):
        found += [_leftover_item(ctx, each) for each in provider.list_leftovers()]
    return found


def _foreign_items(ctx: Context, name: str) -> list[Item]:
    provider = ctx.provider(name)
    found = provider.list_foreign() if isinstance(provider, Shared) else []
    return [_leftover_item(ctx, each) for each in found]


def _machine_item(ctx: Context, machine: Machine) -> Item:
    runs = ctx.store.list_runs(machine=machine.name)
    problem, cure = _machine_problem(ctx, machine, runs)
    rented = machine.market is not Market.OWN and machine.state is MachineState.RUNNING
    return Item(
        provider=machine.provider,
        region=machine.region,
        kind="machine",
        name=machine.name,
        id=machine.id,
        state=machine.state.value,
        since=machine.launched_at,
        price_per_month_usd=_per_month_usd(machine),
        used_by=runs[0].id if runs else dict(machine.detail).get("owner", ""),
        run=runs[0].id if runs else "",
        remark="only you end it" if rented and not _has_guard(machine) else "",
        problem=problem,
        cure=cure,
        machine=machine,
    )


def _machine_problem(ctx: Context, machine: Machine, runs: Sequence[Run]) -> tuple[str, Cure | None]:
    """What is wrong with a machine that its provider has."""
    known = ctx.store.get_machine(machine.name)
    if known is None or known.token != machine.token:
        return "not known on this computer", Cure.ADOPT
    if known.state.gone:
        return "ended here, and still there", Cure.TERMINATE
    if machine.state is MachineState.HALTED:
        return "switched off from inside, billed on", Cure.STOP
    if machine.run_owned and _has_guard(machine) and runs and all(run.state.final for run in runs):
        return "its run has ended", Cure.TERMINATE
    if machine.state is MachineState.RUNNING and not doctor.is_guarded(ctx, known):
        return "its guard does not watch", Cure.GUARD
    return "", None


def _per_month_usd(machine: Machine) -> Decimal | None:
    """At its price of now, with an address that comes and goes with it. Disks, and addresses that stay, are
    things of their own here."""
    if machine.market is Market.OWN or machine.state is MachineState.STOPPED:
        return Decimal(0)
    if machine.price_per_hour_usd is None:
        return None
    rule = None if dict(machine.detail).get("fixed-address") else catalog.address_rule(machine.provider)
    address = rule.price_usd or Decimal(0) if rule else Decimal(0)
    return (machine.price_per_hour_usd + address) * HOURS_PER_MONTH


def _has_guard(machine: Machine) -> bool:
    """Whether it was given something that ends it."""
    return machine.deadline_at is not None or machine.idle_minutes is not None


def _leftover_item(ctx: Context, leftover: Leftover) -> Item:
    runs = ctx.store.list_runs(machine=leftover.machine) if leftover.machine and not leftover.run else []
    return Item(
        provider=leftover.provider,
        region=leftover.region,
        kind=leftover.kind,
        name=leftover.name or leftover.id,
        id=leftover.id,
        state=leftover.state,
        since=leftover.since,
        price_per_month_usd=leftover.price_per_month_usd,
        used_by=leftover.machine,
        run=leftover.run or (runs[0].id if runs else ""),
        foreign=not leftover.ours,
        remark="" if leftover.ours else "not ours",
        problem="" if leftover.in_use or not leftover.ours else "nothing needs it",
        cure=None if leftover.in_use or not leftover.ours else Cure.FREE,
        leftover=leftover,
    )


def _apply(ctx: Context, item: Item) -> None:
    machine = item.machine
    if item.cure is Cure.ADOPT:
        adopt.adopt(ctx, () if item.provider == HOME else (item.provider,))
    elif machine is None:
        return
    elif item.cure is Cure.STOP and isinstance(ctx.provider(item.provider), Stoppable):
        machines.stop(ctx, machine)
    elif item.cure is Cure.GUARD:
        doctor.examine(ctx, machine, mend=True)
    elif item.cure is Cure.TERMINATE:
        known = ctx.store.get_machine(machine.name) or machine
        rent.let_go(ctx, known if known.token == machine.token else machine)


def _free_all(ctx: Context, items: Sequence[Item]) -> Iterator[tuple[Item, str]]:
    """Some need others gone first, or a machine's end: as long as one goes, the rest is tried again."""
    give_up_at = time.monotonic() + FREE_FOR_S
    waiting = list(items)
    while waiting:
        left: list[tuple[Item, str]] = []
        for item in waiting:
            refusal = _tried(lambda item=item: _free(ctx, item))  # type: ignore[misc]
            if refusal:
                left.append((item, refusal))
            else:
                yield item, ""
        if left and time.monotonic() > give_up_at:
            yield from left
            return
        if left and len(left) == len(waiting):
            time.sleep(min(1.0, ctx.settings.poll_s))
        waiting = [item for item, _refusal in left]


def _free(ctx: Context, item: Item) -> None:
    provider = ctx.provider(item.provider)
    if item.leftover is not None and isinstance(provider, Leftovers):
        provider.free(item.leftover)


def _tried(act: Callable[[], None]) -> str:
    try:
        act()
    except CloudrunError as error:
        return error.message
    return ""
