"""Records and types that the tests about money share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from cloudrun.models import Attempt, Charge, Machine, MachineState, Market, Offer, Run, RunState, Stage

START = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Said:
    """What one command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]

OFFER = Offer(
    provider="aws",
    region="us-east-1",
    type="p2.xlarge",
    market=Market.SPOT,
    price_per_hour_usd=Decimal("0.20"),
    price_as_of=date(2026, 3, 1),
    gpu="K80",
    gpu_count=1,
    gpu_memory_gib=12.0,
)


def a_charge(**fields: Any) -> Charge:
    """An hour of a machine on demand, at 0.36 USD an hour: 0.0001 a second."""
    plain = Charge(
        id=None,
        machine="bench",
        run="",
        what="compute",
        provider="aws",
        region="us-east-1",
        market=Market.ON_DEMAND,
        unit="hour",
        unit_price_usd=Decimal("0.36"),
        price_as_of=date(2026, 3, 1),
        opened_at=START,
        closed_at=START + timedelta(hours=1),
    )
    return replace(plain, **fields)


def a_machine(name: str = "bench", **fields: Any) -> Machine:
    plain = Machine(
        id=f"i-{name}",
        name=name,
        provider="aws",
        region="us-east-1",
        type="p2.xlarge",
        market=Market.ON_DEMAND,
        state=MachineState.RUNNING,
        token=f"token-{name}",
        price_per_hour_usd=Decimal("0.36"),
        launched_at=START,
        gpu="K80",
        gpu_count=1,
        gpu_memory_gib=12.0,
    )
    return replace(plain, **fields)


def a_run(id: str, **fields: Any) -> Run:
    """One that succeeded after an hour on `bench`."""
    plain = Run(
        id=id,
        job="svhn_rcnn",
        project="svhn",
        preset="paper",
        args=(),
        command=("true",),
        stack="",
        bundle="",
        outputs="outputs",
        state=RunState.SUCCEEDED,
        stage=Stage.RELEASE,
        submitted_at=START,
        started_at=START,
        ended_at=START + timedelta(hours=1),
        machine="bench",
    )
    return replace(plain, **fields)


def an_attempt(run: str, number: int = 1) -> Attempt:
    return Attempt(run=run, number=number, token=f"{run}-{number}", offer=OFFER)
