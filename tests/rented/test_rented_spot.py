"""Spot machines are taken: with a notice, without one, for good, and with a promise to come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from held_run import EPOCHS, HELD_AT, held
from rented_help import DRILL, TYPE, RentedCloud, epochs_of, last_epoch, submit_drill, wait_for

from cloudrun import ledger
from cloudrun.client import Client
from cloudrun.errors import Refused
from cloudrun.models import LaunchOptions, MachineState, Market, OnPreempt, Outcome, Run, RunState

QUICKLY = "import sys, train; train.EPOCH_S = 0; sys.exit(train.main())"


def uninterrupted(folder: Path, epochs: int) -> dict[str, float]:
    """What the drill comes to on this computer."""
    folder.mkdir()
    done = [sys.executable, "-c", QUICKLY, "--epochs", str(epochs)]
    subprocess.run(
        done, cwd=DRILL, env={**os.environ, "CLOUDRUN_OUTPUT_DIR": str(folder)}, check=True, timeout=60
    )
    return result(folder)


def result(outputs: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((outputs / "metrics.jsonl").read_text().splitlines()[-1])
    return found


def all_epochs(client: Client, run: Run) -> bool:
    return epochs_of(client.files(run.id).outputs / "metrics.jsonl") == list(range(1, EPOCHS + 1))


def test_a_notice_saves_the_run_and_it_ends_as_if_nothing_had_been(
    client: Client, cloud: RentedCloud, tmp_path: Path
) -> None:
    run = submit_drill(client, epochs=40)
    wait_for(lambda: last_epoch(client, run.id) >= 6)
    run = client.run(run.id)
    taken = client.machine(run.machine)
    cloud.preempt(taken.id, notice_s=30)
    run = client.attach(run.id)
    first, second = client.attempts(run.id)
    assert (first.outcome, second.outcome) == (Outcome.PREEMPTED, Outcome.SUCCEEDED)
    assert second.offer.zone != first.offer.zone
    outputs = client.files(run.id).outputs
    assert result(outputs) == uninterrupted(tmp_path / "whole", 40)
    assert epochs_of(outputs / "metrics.jsonl") == list(range(1, 41))
    assert cloud.live() == []
    assert client.store.list_charges(open_only=True) == []


def test_without_a_notice_it_goes_on_from_what_came_home(
    client: Client, cloud: RentedCloud, tmp_path: Path
) -> None:
    """Checkpoints come home every 0.8 s here, four polls."""
    with held(client, tmp_path) as begun:
        saved = client.files(begun.run.id).outputs / "checkpoint" / "history.json"
        wait_for(lambda: saved.is_file() and len(json.loads(saved.read_text())) == HELD_AT)
        cloud.preempt(client.machine(begun.run.machine).id, notice_s=0)
        run = begun.ended()
    assert run.state is RunState.SUCCEEDED
    assert [attempt.outcome for attempt in client.attempts(run.id)] == [Outcome.PREEMPTED, Outcome.SUCCEEDED]
    assert client.files(run.id).log(2).read_text().startswith(f"begins after epoch {HELD_AT}\n")
    assert all_epochs(client, run)


def test_a_stopped_machine_comes_back_and_the_run_goes_on_alone(
    client: Client, cloud: RentedCloud, tmp_path: Path
) -> None:
    client.set_budget(Decimal(50))
    options = LaunchOptions(on_preempt=OnPreempt.STOP)
    with held(client, tmp_path, options=options, max_hours=2.0) as begun:
        machine = client.machine(begun.run.machine)
        cloud.preempt(machine.id, notice_s=5)
        run = begun.ended()
    assert run.state is RunState.SUCCEEDED
    assert [attempt.machine for attempt in client.attempts(run.id)] == [machine.name]
    assert all_epochs(client, run)
    assert cloud.live() == []
    before, after = [line for line in client.store.list_charges(run=run.id) if line.what == "compute"]
    assert before.closed_at
    assert after.closed_at
    assert before.closed_at <= after.opened_at < after.closed_at  # billed after the comeback
    assert run.cost_usd == ledger.run_cost_usd(client.store.list_charges(run=run.id), now=after.closed_at)
    wait_for(lambda: not client.files(run.id).walked())
    client.set_budget(Decimal("0.01"))
    with pytest.raises(Refused, match="of the month's budget"):
        client.restart(run.id)
    assert len(client.attempts(run.id)) == 1
    assert cloud.live() == []


def test_prices_of_spot_are_those_that_were_asked(client: Client, cloud: RentedCloud) -> None:
    machine = client.launch(type=TYPE, market=Market.SPOT, name="dear", stack="none")
    cloud.record.tell("set-spot-price", type=TYPE, zone=machine.zone, usd="0.777")
    client.shell("dear").run("sleep 2")
    client.terminate("dear")
    lines = [line for line in client.store.list_charges(machine="dear") if line.what == "compute"]
    assert [line.estimated for line in lines] == [False, False]
    assert lines[0].unit_price_usd == machine.price_per_hour_usd
    assert lines[1].unit_price_usd == Decimal("0.777")
    assert lines[0].closed_at == lines[1].opened_at


def test_a_preempted_machine_that_stays_is_seen_as_that(client: Client, cloud: RentedCloud) -> None:
    options = LaunchOptions(on_preempt=OnPreempt.TERMINATE)
    machine = client.launch(type=TYPE, market=Market.SPOT, stack="none", options=options)
    cloud.preempt(machine.id, notice_s=0)
    wait_for(lambda: client.machines(all=True)[0].state.gone)
    assert client.machines(all=True)[0].state is MachineState.PREEMPTED
    assert client.store.list_charges(open_only=True) == []
