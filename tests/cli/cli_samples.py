"""Records and types that the tests of the command line share."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from samples import A_MACHINE, A_RUN, NOON

from cloudrun.models import Machine, Run, RunState, Stage

NOW = NOON


def a_run(**changes: Any) -> Run:
    """A run that succeeded a minute before NOW."""
    ended = replace(
        A_RUN,
        id="8f3kq2zx",
        args=("--epochs", "3"),
        command=("python3", "train.py"),
        stack="cpu-torch",
        bundle="ab" * 32,
        state=RunState.SUCCEEDED,
        stage=Stage.RELEASE,
        submitted_at=datetime(2026, 3, 4, 11, 55, tzinfo=UTC),
        started_at=datetime(2026, 3, 4, 11, 55, 5, tzinfo=UTC),
        ended_at=datetime(2026, 3, 4, 11, 59, tzinfo=UTC),
        machine="bench",
        exit_code=0,
        metric_name="val_acc",
        metric_value=0.93125,
        outputs_bytes=1_234_567,
        cost_usd=Decimal("0.0171"),
    )
    return replace(ended, **changes)


def a_machine(**changes: Any) -> Machine:
    """A spot p2.xlarge that is up."""
    up = replace(
        A_MACHINE,
        id="i-0abc",
        name="p2-xlarge",
        zone="",
        stack="cuda11-torch",
        price_per_hour_usd=Decimal("0.27"),
        launched_at=datetime(2026, 3, 4, 11, 0, tzinfo=UTC),
        deadline_at=datetime(2026, 3, 4, 15, 0, tzinfo=UTC),
        gpu="Tesla K80",
        gpu_count=1,
        gpu_memory_gib=12.0,
    )
    return replace(up, **changes)
