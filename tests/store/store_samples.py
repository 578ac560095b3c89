"""Records for the tests of the store and the ledger, each field set to something that must survive."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from samples import A_CHARGE, A_MACHINE, A_RUN, AN_OFFER

from cloudrun.models import (
    Attempt,
    Charge,
    Machine,
    MachineState,
    Market,
    Outcome,
    Run,
    RunState,
    SshAddress,
    Stage,
)

NOON = datetime(2026, 3, 4, 12, 0, 0, 123456, tzinfo=UTC)

OFFER = replace(
    AN_OFFER,
    price_per_hour_usd=Decimal("0.2700"),
    zone="us-east-1c",
    gpu_capability=3.7,
    vcpus=4,
    memory_gib=61.0,
    warning="retired",
)

FULL_RUN = Run(
    id="abcd2345",
    job="svhn_rcnn",
    project="street",
    preset="quick",
    args=("--lr", "0.1", "naïve \x1b[31m", "not utf-8: \udcff", "new\nline"),
    command=("python3", "train.py"),
    stack="torch-cpu",
    bundle="ab" * 32,
    outputs="outputs",
    state=RunState.TIMED_OUT,
    stage=Stage.RELEASE,
    submitted_at=NOON,
    machine="bench",
    on="bench",
    started_at=NOON + timedelta(seconds=1),
    ended_at=NOON + timedelta(hours=1),
    exit_code=75,
    message='it\'s "over"; DROP TABLE runs',
    metric_name="accuracy",
    metric_direction="min",
    metric_value=0.1 + 0.2,
    outputs_bytes=2**40,
    cost_usd=Decimal("0.270000"),
    max_hours=1.5,
    budget_usd=Decimal("3.10"),
    resume=True,
    resume_of="zyxw9876",
    cancel_requested=True,
    detached=True,
    supervisor_pid=4321,
    env=(("A", "1"), ("B", "=\udcfe")),
)

FULL_ATTEMPT = Attempt(
    run="abcd2345",
    number=1,
    token="cr-abcd2345-1",
    offer=OFFER,
    machine="bench",
    started_at=NOON,
    ended_at=NOON + timedelta(hours=1),
    outcome=Outcome.PREEMPTED,
    exit_code=75,
    message="taken",
    received_bytes=7,
)

FULL_MACHINE = replace(
    A_MACHINE,
    id="i-0123",
    name="bench",
    token="cr-abcd2345-1",
    idle_minutes=45.0,
    disk_gb=100,
    zone="us-east-1c",
    address=SshAddress("127.9.8.7", 2222, "ubuntu", Path("/keys/a b/id_ed25519"), "ssh-ed25519 AAAA"),
    stack="torch-cpu",
    price_per_hour_usd=Decimal("0.2700"),
    launched_at=NOON,
    ended_at=NOON + timedelta(hours=2),
    deadline_at=NOON + timedelta(hours=3),
    run_owned=True,
    provisioned=True,
    versions=(("python", "3.11.2"), ("torch", "2.7.1")),
    gpu="K80",
    gpu_count=1,
    gpu_memory_gib=12.0,
    gpu_capability=3.7,
    detail=(("spot_request", "sir-1"),),
)

FULL_CHARGE = replace(
    A_CHARGE,
    run="abcd2345",
    what="disk",
    market=Market.SPOT,
    unit="GB-month",
    unit_price_usd=Decimal("0.0800"),
    opened_at=NOON,
    closed_at=NOON + timedelta(hours=1),
    quantity=Decimal("100.5"),
    estimated=True,
    void=True,
    follows=True,
)


def make_run(id: str, *, minutes: float = 0.0, **fields: Any) -> Run:
    """A bare run, submitted so many minutes after noon."""
    submitted_at = NOON + timedelta(minutes=minutes)
    bare = replace(A_RUN, id=id, job="train", project="default", preset="", submitted_at=submitted_at)
    return replace(bare, **fields)


def make_attempt(run: str, number: int = 1) -> Attempt:
    return Attempt(run=run, number=number, token=f"{run}.{number}", offer=OFFER)


def make_machine(name: str, **fields: Any) -> Machine:
    return replace(A_MACHINE, **{"id": "", "name": name, "zone": "", "state": MachineState.PENDING, **fields})


def make_charge(**fields: Any) -> Charge:
    return replace(
        FULL_CHARGE, **({"what": "compute", "unit": "hour", "closed_at": None, "void": False} | fields)
    )
