"""Opening and closing what a machine costs, in the store, at the times that its provider names."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from cloudrun import budget, ledger
from cloudrun.attempts import offer_of
from cloudrun.bucket import cloud_of
from cloudrun.context import Context, now
from cloudrun.errors import CloudrunError, Refused
from cloudrun.events import Note
from cloudrun.models import Attempt, Charge, Machine, MachineState, Market, Offer
from cloudrun.providers.base import Bucket, SpotHistory

WHILE_ON = ("compute", "address")  # the disk of a machine that is off is billed on, and an address that stays


def open_rent(ctx: Context, offer: Offer, *, disk_gb: int, machine: str, run: str, at: datetime) -> None:
    """The lines of a machine that is about to be asked for."""
    _add(ctx, ledger.open_rent(offer, disk_gb=disk_gb, machine=machine, run=run, at=at))


def open_running(ctx: Context, machine: Machine, at: datetime) -> None:
    """The lines of a machine that is about to be started again. Idempotent."""
    _add(ctx, _coming(ctx, machine, at))


def check_start(ctx: Context, machine: Machine) -> None:
    """Tell what the month's budget warns of when the machine is started now. Raises Refused where what it may
    cost, to its deadline or else to the end of the month, does not fit in any more."""
    budgets, at = ctx.settings.budgets, now()
    lines = _coming(ctx, machine, at)
    if not budgets or not lines or machine.market is Market.OWN:
        return
    project = ctx.store.find_run(lines[0].run).project if lines[0].run else ""
    worst = budget.cost_this_month(lines, machine.deadline_at, now=at)
    for line in budget.check(ctx.store, budgets, worst, now=at, project=project):
        ctx.on_event(Note(line))


def note_comeback(ctx: Context, machine: Machine, at: datetime) -> None:
    """Its provider started it again by itself, at `at`: what is billed from then on is opened. Idempotent.
    The month's budget can only warn: its guard's deadline ends it, as before."""
    try:
        check_start(ctx, machine)
    except Refused as refusal:
        ctx.on_event(Note(f"{machine.name} came back, and {refusal.message}; {refusal.hint}"))
    open_running(ctx, machine, at)


def change_disk(ctx: Context, machine: Machine, disk_gb: int, at: datetime) -> None:
    """The disk is billed by another size from now on."""
    lines = _open_lines(ctx, machine.name, ("disk",))
    _close(ctx, lines, at)
    run = lines[0].run if lines else ""
    _add(ctx, ledger.open_disk(offer_of(machine), disk_gb=disk_gb, machine=machine.name, run=run, at=at))


def close_ended(ctx: Context, machine: Machine, at: datetime) -> None:
    """The machine is off or gone since `at`: what ends with that is closed, and spot takes its real price."""
    kinds = _ends_when_off(machine) if machine.state is MachineState.STOPPED else (*WHILE_ON, "disk")
    _close(ctx, _open_lines(ctx, machine.name, kinds), at)
    if machine.market is Market.SPOT:
        _settle(ctx, machine)


def charge_received(ctx: Context, attempt: Attempt) -> None:
    """What the attempt's machine sent home since the last time becomes lines of the ledger. Idempotent."""
    attempt = next(each for each in ctx.store.list_attempts(attempt.run) if each.number == attempt.number)
    if not attempt.received_bytes:
        return
    lines = _sent_out(ctx, attempt, attempt.offer, attempt.received_bytes)
    ctx.store.charge_received(attempt.run, attempt.number, attempt.received_bytes, lines)


def charge_outbox(
    ctx: Context, attempt: Attempt, bucket: Bucket, *, stored_bytes: int, fetched_bytes: int
) -> None:
    """What a machine stored in a bucket itself, and what was fetched home from there, become lines of the
    ledger."""
    charge_moved(ctx, attempt, bucket, stored_bytes, to_bucket=True)
    ctx.store.add_charges(_sent_out(ctx, attempt, _offer_at(bucket, attempt), fetched_bytes))


def charge_moved(
    ctx: Context, attempt: Attempt, bucket: Bucket, moved_bytes: int, *, to_bucket: bool
) -> None:
    """What went between the attempt's machine and a bucket becomes lines of the ledger, at the price of the
    cloud that sent it. Within a region it is free; to a bucket of the same cloud whose region nobody tells,
    nothing is estimated."""
    there = _offer_at(bucket, attempt)
    sender = attempt.offer if to_bucket else there
    if there.provider != attempt.offer.provider:
        ctx.store.add_charges(_sent_out(ctx, attempt, sender, moved_bytes))
    elif there.region not in ("", attempt.offer.region):
        of = {"machine": attempt.machine, "run": attempt.run}
        ctx.store.add_charges(ledger.sent_between(sender, moved_bytes, at=now(), **of))


def void_running(ctx: Context, machine: Machine) -> None:
    """It was not started after all: the lines that were opened for that cost nothing. Idempotent."""
    for charge in _open_lines(ctx, machine.name, _ends_when_off(machine)):
        if charge.id is not None:
            ctx.store.void_charge(charge.id)


def void_launch(ctx: Context, name: str) -> None:
    """The machine never was: its open lines cost nothing. Idempotent."""
    for charge in ctx.store.list_charges(machine=name, open_only=True):
        if charge.id is not None:
            ctx.store.void_charge(charge.id)


def _sent_out(ctx: Context, attempt: Attempt, sender: Offer, sent_bytes: int) -> list[Charge]:
    """The lines of what that cloud sent to the internet now."""
    at = now()
    return ledger.sent_home(
        sender,
        sent_bytes,
        before_gb=ctx.store.sent_gb(sender.provider, budget.month_begin(at)),
        machine=attempt.machine,
        run=attempt.run,
        at=at,
    )


def _offer_at(bucket: Bucket, attempt: Attempt) -> Offer:
    """The attempt's offer as if it were where the bucket is."""
    region = ""
    with suppress(CloudrunError):  # an estimate stops nothing
        region = bucket.region
    return replace(attempt.offer, provider=cloud_of(bucket.url), region=region)


def _settle(ctx: Context, machine: Machine) -> None:
    """Put the sampled spot prices in the place of the estimate; it stays where they cannot be had."""
    provider = ctx.provider(machine.provider)
    if not isinstance(provider, SpotHistory):
        return
    for charge in ctx.store.list_charges(machine=machine.name):
        if charge.void or not (charge.what == "compute" and charge.estimated and charge.closed_at):
            continue
        if machine.launched_at and charge.opened_at < machine.launched_at:
            continue  # of an earlier machine of the same name
        try:
            prices = provider.spot_prices(machine, charge.opened_at, charge.closed_at)
        except CloudrunError:
            continue  # the launch price stands, marked as an estimate
        if prices and charge.id is not None:
            ctx.store.settle_charge(charge.id, ledger.at_prices(charge, prices))


def _ends_when_off(machine: Machine) -> tuple[str, ...]:
    return ("compute",) if dict(machine.detail).get("fixed-address") else WHILE_ON


def _coming(ctx: Context, machine: Machine, at: datetime) -> list[Charge]:
    """The lines that begin when it is on again; those of a run's own machine are that run's."""
    known = {line.what for line in _open_lines(ctx, machine.name, WHILE_ON)}
    run = next((line.run for line in reversed(ctx.store.list_charges(machine=machine.name)) if line.run), "")
    owner = run if machine.run_owned else ""
    lines = ledger.open_running(offer_of(machine), machine=machine.name, run=owner, at=at)
    return [line for line in lines if line.what not in known]


def _open_lines(ctx: Context, machine: str, kinds: Iterable[str]) -> list[Charge]:
    return [each for each in ctx.store.list_charges(machine=machine, open_only=True) if each.what in kinds]


def _close(ctx: Context, charges: Iterable[Charge], at: datetime) -> None:
    for charge in charges:
        if charge.id is not None:
            ctx.store.close_charge(charge.id, at)


def _add(ctx: Context, charges: Iterable[Charge]) -> None:
    for charge in charges:
        ctx.store.add_charge(charge)
