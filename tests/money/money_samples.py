"""Records and types that the tests about money share."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from samples import A_CHARGE, A_MACHINE, A_RUN, AN_OFFER, NOON

from cloudrun.models import Attempt, Charge, Machine, Market, Run, RunState, Stage

START = NOON


OFFER = replace(AN_OFFER, price_per_hour_usd=Decimal("0.20"))


def a_charge(**fields: Any) -> Charge:
    """An hour of a machine on demand, at 0.36 USD an hour: 0.0001 a second."""
    return replace(A_CHARGE, **{"closed_at": START + timedelta(hours=1), **fields})


def a_machine(name: str = "bench", **fields: Any) -> Machine:
    """One on demand, at the price of `a_charge`."""
    plain = replace(
        A_MACHINE,
        id=f"i-{name}",
        name=name,
        zone="",
        market=Market.ON_DEMAND,
        token=f"token-{name}",
        price_per_hour_usd=A_CHARGE.unit_price_usd,
        launched_at=START,
        gpu="K80",
        gpu_count=1,
        gpu_memory_gib=12.0,
    )
    return replace(plain, **fields)


def a_run(id: str, **fields: Any) -> Run:
    """One that succeeded after an hour on `bench`."""
    plain = replace(
        A_RUN,
        id=id,
        preset="paper",
        state=RunState.SUCCEEDED,
        stage=Stage.RELEASE,
        started_at=START,
        ended_at=START + timedelta(hours=1),
        machine="bench",
    )
    return replace(plain, **fields)


def an_attempt(run: str, number: int = 1) -> Attempt:
    return Attempt(run=run, number=number, token=f"{run}-{number}", offer=OFFER)
