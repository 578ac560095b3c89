"""What a machine or a run may spend: at most, by the limits that were set on it; and what is left of that and
of the month's budget when a run goes on elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from cloudrun import budget
from cloudrun.attempts import Order, hourly_usd, offer_of
from cloudrun.billing import billed_quantity
from cloudrun.context import Context, now
from cloudrun.errors import Refused
from cloudrun.events import Note
from cloudrun.guard import PULL_GRACE_MINUTES
from cloudrun.ledger import cost_usd
from cloudrun.models import Machine, Market, Offer, Run


@dataclass(frozen=True, slots=True)
class Spending:
    """The limits that the user set on one run."""

    max_hours: float | None
    budget_usd: Decimal | None
    disk_gb: int
    grace_minutes: float = 0.0  # by which the machine may outlast max_hours
    keep: bool = False  # it ends when its budget is spent, and not at max_hours

    def per_hour_usd(self, offer: Offer) -> Decimal | None:
        """Compute, disk and public address of an hour; None where the price is unknown."""
        return hourly_usd(offer, self.disk_gb)

    def affords(self, offer: Offer) -> bool:
        """Whether the budget reaches for the first hour; an unknown price is never affordable."""
        if self.budget_usd is None:
            return True
        price = self.per_hour_usd(offer)
        return price is not None and price <= self.budget_usd

    def worst_case_usd(self, candidates: Sequence[Offer]) -> Decimal | None:
        """What a machine of the dearest candidate costs until its deadline, at most the budget; None where a
        price is unknown, or no end. With a job the deadline is past max_hours, by the time for bringing the
        outputs home."""
        if all(offer.market is Market.OWN for offer in candidates):
            return Decimal(0)
        if self.keep:
            return self.budget_usd
        totals = [self._total(self.per_hour_usd(offer), self._billed_hours(offer)) for offer in candidates]
        known = [total for total in totals if total is not None]
        return max(known) if len(known) == len(totals) else None

    def worst_case_on_usd(self, machine: Machine) -> Decimal | None:
        """The same of a machine that is up, from now on."""
        return self._total(_up_per_hour_usd(machine), self._hours_left_on(machine))

    def hours_on(self, machine: Machine) -> float | None:
        """The run's limit on a machine that is up: its own, or where its budget is spent at what an hour
        there costs; None = no limit. Raises Refused for a budget on a machine whose price is unknown."""
        per_hour = _up_per_hour_usd(machine)
        if self.budget_usd is None or per_hour == 0:
            return self.max_hours
        if per_hour is None:
            raise Refused(
                f"a budget needs a price, and that of {machine.name} is unknown", hint="use --max-hours"
            )
        spent = float(self.budget_usd / per_hour)
        return spent if self.max_hours is None else min(self.max_hours, spent)

    def _hours_left_on(self, machine: Machine) -> float | None:
        """To the run's limit, or to the machine's deadline."""
        own, deadline = self.hours_on(machine), machine.deadline_at
        if deadline is None:
            return own
        left = max(0.0, (deadline - datetime.now(UTC)) / timedelta(hours=1))
        return left if own is None else min(own, left)

    def _billed_hours(self, offer: Offer) -> float | None:
        """To the deadline, and at least what its provider bills for a machine that is up for a moment."""
        if self.max_hours is None:
            return None
        at = datetime.now(UTC)
        least = float(billed_quantity(offer.provider, offer.market, at, at))
        return max(self.max_hours + self.grace_minutes / 60, least)

    def _total(self, per_hour_usd: Decimal | None, hours: float | None) -> Decimal | None:
        if per_hour_usd == 0:
            return Decimal(0)
        if per_hour_usd is None or hours is None:
            return self.budget_usd
        total = (per_hour_usd * Decimal(str(hours))).quantize(Decimal("0.0001"))
        return total if self.budget_usd is None else min(total, self.budget_usd)


def check_next(ctx: Context, run: Run, order: Order, offer: Offer) -> None:
    """Whether the run may go on with that offer: what is left of its budget reaches for an hour, as a plan
    asks, and the month's budget for what it may cost. Tells the warnings. Raises Refused."""
    left, hourly = left_usd(ctx, run), hourly_usd(offer, order.disk_gb)
    if left is not None and (hourly is None or left < hourly):
        raise Refused(
            f"{left:.4f} USD are left of the run's budget of {run.budget_usd:f} USD, less than an hour costs",
            hint=f"cloudrun restart {run.id} grants the budget once more",
        )
    check_month(ctx, run, order, [offer], left)


def check_month(
    ctx: Context, run: Run, order: Order, candidates: Sequence[Offer], budget_usd: Decimal | None
) -> None:
    """Tell what the month's budget warns of when the dearest of these is rented for the run now, which may
    spend so much on it. Raises Refused where that does not fit in. What is up already is counted."""
    budgets = ctx.settings.budgets
    if not budgets or run.on or all(offer.market is Market.OWN for offer in candidates):
        return
    spending = Spending(run.max_hours, budget_usd, order.disk_gb, PULL_GRACE_MINUTES, order.keep)
    worst = spending.worst_case_usd(candidates)
    for line in budget.check(ctx.store, budgets, worst, now=now(), project=run.project):
        ctx.on_event(Note(line))


def left_usd(ctx: Context, run: Run, *, besides: str = "") -> Decimal | None:
    """What the run's machines, or all but one, have left of its budget; None where it has none."""
    if run.budget_usd is None:
        return None
    return max(Decimal(0), run.budget_usd - _spent_usd(ctx, run, besides))


def granted_usd(ctx: Context, run: Run, order: Order) -> Decimal | None:
    """The budget of a run that is begun again: what it was ordered with, on top of what is spent."""
    return None if order.budget_usd is None else order.budget_usd + _spent_usd(ctx, run)


def _spent_usd(ctx: Context, run: Run, besides: str = "") -> Decimal:
    """As far as prices are known."""
    lines = [line for line in ctx.store.list_charges(run=run.id) if not besides or line.machine != besides]
    return sum((cost_usd(line, now=now()) or Decimal(0) for line in lines), Decimal(0))


def _up_per_hour_usd(machine: Machine) -> Decimal | None:
    """What an hour of a machine that is up costs, disk and address in."""
    own = machine.market is Market.OWN
    return Decimal(0) if own else hourly_usd(offer_of(machine), machine.disk_gb)
