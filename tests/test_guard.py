"""The policy with which machines end themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from cloudrun.errors import Refused
from cloudrun.guard import extended, make_guard, policy

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_run_s_limit_leaves_time_to_pull() -> None:
    guard = make_guard(now=NOW, max_hours=2, grace_minutes=10)
    assert guard.deadline_at == NOW + timedelta(hours=2, minutes=10)
    assert make_guard(now=NOW, max_hours=2).deadline_at == NOW + timedelta(hours=2)
    assert guard.idle_minutes == 30


def test_the_earlier_of_budget_and_hours_wins() -> None:
    cheap = make_guard(now=NOW, max_hours=100, budget_usd=Decimal(9), price_per_hour_usd=Decimal("0.9"))
    assert cheap.deadline_at == NOW + timedelta(hours=10)
    rich = make_guard(now=NOW, max_hours=1, budget_usd=Decimal(900), price_per_hour_usd=Decimal("0.9"))
    assert rich.deadline_at == NOW + timedelta(hours=1)


def test_a_budget_without_a_price_is_refused() -> None:
    with pytest.raises(Refused, match="unknown"):
        make_guard(now=NOW, budget_usd=Decimal(5))


def test_keep_opts_out_of_both() -> None:
    guard = make_guard(now=NOW, max_hours=1, keep=True)
    assert (guard.deadline_at, guard.idle_minutes, guard.keep) == (None, None, True)
    bound = make_guard(
        now=NOW, max_hours=1, budget_usd=Decimal(9), price_per_hour_usd=Decimal("0.9"), keep=True
    )
    assert (bound.deadline_at, bound.idle_minutes, bound.keep) == (NOW + timedelta(hours=10), None, False)


def test_extend_counts_from_the_deadline_or_from_now() -> None:
    later = NOW + timedelta(hours=5)
    assert extended(later, hours=2, idle_minutes=5, now=NOW).deadline_at == later + timedelta(hours=2)
    assert extended(None, hours=2, idle_minutes=None, now=NOW).deadline_at == NOW + timedelta(hours=2)


def test_the_policy_speaks_unix_seconds_and_argv() -> None:
    told = policy(make_guard(now=NOW, max_hours=1, idle_minutes=10), ("shutdown", "-h", "now"))
    assert told == {
        "issued_at": NOW.timestamp(),
        "deadline_at": NOW.timestamp() + 3600,
        "idle_s": 600,
        "keep": False,
        "release": ["shutdown", "-h", "now"],
    }
