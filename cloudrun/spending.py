"""What a run may still spend when it goes on elsewhere: its own budget, and the month's."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from cloudrun import budget
from cloudrun.attempts import Order, hourly_usd
from cloudrun.context import Context, now
from cloudrun.errors import Refused
from cloudrun.events import Note
from cloudrun.guard import PULL_GRACE_MINUTES
from cloudrun.ledger import cost_usd
from cloudrun.models import Market, Offer, Run


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
    from cloudrun.plan import launch_worst_case_usd  # all that makes plans with it: few runs have to ask

    worst = launch_worst_case_usd(
        candidates,
        max_hours=run.max_hours,
        budget_usd=budget_usd,
        disk_gb=order.disk_gb,
        grace_minutes=PULL_GRACE_MINUTES,
        keep=order.keep,
    )
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
