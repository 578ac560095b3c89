"""Records and types that the tests of the command line share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cloudrun.models import Machine, MachineState, Market, Run, RunState, Stage

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Said:
    """What one command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


def a_run(**changes: Any) -> Run:
    """A run that succeeded a minute before NOW."""
    facts: dict[str, Any] = {
        "id": "8f3kq2zx",
        "job": "svhn_rcnn",
        "project": "svhn",
        "preset": "quick",
        "args": ("--epochs", "3"),
        "command": ("python3", "train.py"),
        "stack": "cpu-torch",
        "bundle": "ab" * 32,
        "outputs": "outputs",
        "state": RunState.SUCCEEDED,
        "stage": Stage.RELEASE,
        "submitted_at": datetime(2026, 3, 4, 11, 55, tzinfo=UTC),
        "started_at": datetime(2026, 3, 4, 11, 55, 5, tzinfo=UTC),
        "ended_at": datetime(2026, 3, 4, 11, 59, tzinfo=UTC),
        "machine": "bench",
        "exit_code": 0,
        "metric_name": "val_acc",
        "metric_value": 0.93125,
        "outputs_bytes": 1_234_567,
        "cost_usd": Decimal("0.0171"),
    }
    return Run(**{**facts, **changes})


def a_machine(**changes: Any) -> Machine:
    """A spot p2.xlarge that is up."""
    facts: dict[str, Any] = {
        "id": "i-0abc",
        "name": "p2-xlarge",
        "provider": "aws",
        "region": "us-east-1",
        "type": "p2.xlarge",
        "market": Market.SPOT,
        "state": MachineState.RUNNING,
        "stack": "cuda11-torch",
        "price_per_hour_usd": Decimal("0.27"),
        "launched_at": datetime(2026, 3, 4, 11, 0, tzinfo=UTC),
        "deadline_at": datetime(2026, 3, 4, 15, 0, tzinfo=UTC),
        "gpu": "Tesla K80",
        "gpu_count": 1,
        "gpu_memory_gib": 12.0,
    }
    return Machine(**{**facts, **changes})
