"""A home folder with many finished runs in its store, made through the store itself."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from cloudrun.config import Settings
from cloudrun.models import Attempt, Market, Offer, Outcome, Run, RunState, Stage
from cloudrun.names import new_run_id
from cloudrun.store import Store

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
STATES = (RunState.SUCCEEDED, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


def fill(home: Path, count: int) -> None:
    """Write that many runs with one attempt each; the same figures every time, ids apart."""
    home.mkdir(parents=True, exist_ok=True)
    store = Store(Settings(home=home).store_path)
    chance = random.Random(0)
    offer = Offer("local", "local", "local", Market.OWN, Decimal(0))
    taken: set[str] = set()
    for number in range(count):
        while (run_id := new_run_id()) in taken:
            pass
        taken.add(run_id)
        store.add_run(*finished_run(run_id, number, chance, offer), [])


def finished_run(run_id: str, number: int, chance: random.Random, offer: Offer) -> tuple[Run, Attempt]:
    submitted_at = FIRST + timedelta(seconds=97 * number)
    ended_at = submitted_at + timedelta(seconds=chance.randrange(20, 20_000))
    state = STATES[number % len(STATES)]
    succeeded = state is RunState.SUCCEEDED
    run = Run(
        id=run_id,
        job=("svhn_rcnn", "bn_study", "sample_size")[number % 3],
        project="default",
        preset="quick",
        args=("--seed", str(number)),
        command=("python3", "train.py"),
        stack="cpu",
        bundle=f"{number:064x}",
        outputs="outputs",
        state=state,
        stage=Stage.RELEASE,
        submitted_at=submitted_at,
        machine=f"local-{number}",
        started_at=submitted_at + timedelta(seconds=2),
        ended_at=ended_at,
        exit_code=0 if succeeded else 1,
        metric_name="val_accuracy",
        metric_value=chance.random() if succeeded else None,
        outputs_bytes=chance.randrange(1_000_000),
        cost_usd=Decimal(0),
    )
    outcome = Outcome.SUCCEEDED if succeeded else Outcome.FAILED
    attempt = Attempt(run_id, 1, f"token-{run_id}", offer, run.machine, run.started_at, ended_at, outcome)
    return run, attempt
