"""When a machine ends by itself: the one policy that travels in the boot payload.

The guard on the machine needs no client. It ends the machine at an absolute deadline,
or when it was idle too long (no run, no SSH session, GPU unused).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from cloudrun.errors import Refused
from cloudrun.models import Guard

IDLE_MINUTES = 30.0
# After a run's own limit the machine stays up this long, for the last checkpoint and the pull.
PULL_GRACE_MINUTES = 10.0


def make_guard(
    *,
    now: datetime,
    max_hours: float | None = None,
    budget_usd: Decimal | None = None,
    price_per_hour_usd: Decimal | None = None,
    idle_minutes: float | None = IDLE_MINUTES,
    grace_minutes: float = 0.0,
    keep: bool = False,
) -> Guard:
    """The policy for a machine launched at `now`.

    The deadline is the earlier of `max_hours` plus `grace_minutes`, and the hour at which
    `budget_usd` is spent. With `keep` only the budget ends it, and without one nothing does. Raises Refused
    for a budget on a machine whose price is unknown.
    """
    if keep and budget_usd is None:
        return Guard(issued_at=now, deadline_at=None, idle_minutes=None, keep=True)
    limits = []
    if max_hours is not None and not keep:
        limits.append(timedelta(hours=max_hours, minutes=grace_minutes))
    if budget_usd is not None:
        limits.append(timedelta(hours=_budget_hours(budget_usd, price_per_hour_usd)))
    deadline = now + min(limits) if limits else None
    return Guard(issued_at=now, deadline_at=deadline, idle_minutes=None if keep else idle_minutes)


def extended(
    guard_deadline: datetime | None, *, hours: float, idle_minutes: float | None, now: datetime
) -> Guard:
    """The policy after `extend`: the deadline moves by `hours`, counted from now where there was none."""
    start = guard_deadline or now
    return Guard(issued_at=now, deadline_at=start + timedelta(hours=hours), idle_minutes=idle_minutes)


def policy(guard: Guard, release: tuple[str, ...], *, notices: str = "") -> dict[str, object]:
    """The guard as the agent reads it (JSON): Unix seconds of this computer's clock, argv of the release.

    `notices` names the service that announces a preemption on the machine itself: "aws" (EC2's metadata
    service), "" for none, or for the one that the machine's guard asks already.
    """
    said: dict[str, object] = {
        "issued_at": guard.issued_at.timestamp(),
        "deadline_at": guard.deadline_at.timestamp() if guard.deadline_at else None,
        "idle_s": guard.idle_minutes * 60 if guard.idle_minutes is not None else None,
        "keep": guard.keep,
        "release": list(release),
    }
    return said | ({"notices": notices} if notices else {})


def _budget_hours(budget_usd: Decimal, price_per_hour_usd: Decimal | None) -> float:
    if price_per_hour_usd is None:
        raise Refused(
            "a budget needs a price, and this machine's is unknown",
            hint="use --max-hours, or a type whose price `cloudrun offers` knows",
        )
    if price_per_hour_usd == 0:
        return float(24 * 365)
    return float(budget_usd / price_per_hour_usd)
