"""Records for tests to which it matters little which: others differ from these by what matters to them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from cloudrun.models import Charge, Machine, MachineState, Market, Offer, Run, RunState, Stage

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)

AN_OFFER = Offer(
    provider="aws",
    region="us-east-1",
    type="p2.xlarge",
    market=Market.SPOT,
    price_per_hour_usd=Decimal("0.27"),
    price_as_of=date(2026, 3, 1),
    gpu="K80",
    gpu_count=1,
    gpu_memory_gib=12.0,
)

A_MACHINE = Machine(
    id="i-1",
    name="k80",
    provider="aws",
    region="us-east-1",
    zone="us-east-1a",
    type="p2.xlarge",
    market=Market.SPOT,
    state=MachineState.RUNNING,
)

# Submitted at noon; it has not come far.
A_RUN = Run(
    id="aaaa2222",
    job="svhn_rcnn",
    project="svhn",
    preset="quick",
    args=(),
    command=("true",),
    stack="",
    bundle="",
    outputs="outputs",
    state=RunState.STARTING,
    stage=Stage.RECORD,
    submitted_at=NOON,
)

# Of a machine on demand, open since noon; 0.36 USD an hour are 0.0001 a second.
A_CHARGE = Charge(
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
    opened_at=NOON,
)
