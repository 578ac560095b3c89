"""What a run on machines of its own costs besides them, and what it may spend, on the whole road."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from flaky import FlakyProvider, offer, with_provider

from cloudrun import charging, execute, ledger, supervise
from cloudrun.client import Client
from cloudrun.errors import Refused
from cloudrun.events import Event, LogData, Note
from cloudrun.models import Charge, Market, Run, RunState

SENDS = """
    import os, pathlib
    pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"], "weights.bin").write_bytes(os.urandom(5_000_000))
"""


def test_what_a_run_sends_home_is_in_its_cost(
    client: Client, make_job, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ((Decimal(0), Decimal(0)), (Decimal("0.002"), Decimal("0.09")))  # 2 MB free
    monkeypatch.setattr("cloudrun.billing._egress_tiers", lambda provider: steps)
    ctx = with_provider(client.context(), FlakyProvider(client.settings))
    plan = client.plan(make_job(SENDS), type="local")
    run = supervise.submit(ctx, replace(plan, candidates=(offer("moon-1a", "0.1"),)), detach=False)
    assert run.state is RunState.SUCCEEDED
    (attempt,) = client.attempts(run.id)
    charging.charge_received(ctx, attempt)  # again: nothing more
    lines = client.store.list_charges(run=run.id)
    assert [(line.quantity, line.unit_price_usd) for line in lines if line.what == "egress"] == [
        (Decimal("0.002"), 0),
        (Decimal("0.003"), Decimal("0.09")),
    ]
    assert run.cost_usd == ledger.run_cost_usd(lines, now=lines[-1].opened_at)
    assert client.store.list_charges(open_only=True) == []


def taken_once(client: Client, flaky: FlakyProvider, job: Path, **limits: object) -> tuple[Run, list[str]]:
    """A run of the job whose first machine is taken as soon as it says `go`; and what was told."""
    told: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, Note):
            told.append(event.message)
        if isinstance(event, LogData) and b"go" in event.data and not flaky.taken:
            run = client.run("last")
            client.store.add_charge(bought(run))
            flaky.take(client.machine(run.machine))

    ctx = replace(with_provider(client.context(), flaky), on_event=watch)
    plan = replace(client.plan(job, type="local"), **limits,
                   candidates=(offer("moon-1a", "0.1"), offer("moon-1b", "0.2")))  # fmt: skip
    return supervise.submit(ctx, plan, detach=False), told


def bought(run: Run) -> Charge:
    """A quarter of a dollar that the run has spent on its first machine."""
    at = datetime.now(UTC)
    return Charge(None, run.machine, run.id, "other", "flaky", "moon-1", Market.SPOT, "piece",
                  Decimal("0.25"), None, at, at)  # fmt: skip


@pytest.fixture
def goes_on(tmp_path: Path, make_job) -> Path:
    """It ends only where it was begun before."""
    return make_job(f"""
        import pathlib, time
        begun = pathlib.Path({str(tmp_path / "begun")!r})
        if not begun.exists():
            begun.touch()
            print("go", flush=True)
            time.sleep(60)
    """)


def test_a_run_goes_on_elsewhere_with_what_is_left_of_its_budget(client: Client, goes_on: Path) -> None:
    flaky = FlakyProvider(client.settings)
    run, _ = taken_once(client, flaky, goes_on, budget_usd=Decimal("0.5"))
    assert (run.state, flaky.launched) == (RunState.SUCCEEDED, ["moon-1a", "moon-1b"])
    first, second = (client.store.find_machine(each.machine) for each in client.attempts(run.id))
    hours = [
        (machine.deadline_at - machine.launched_at) / timedelta(hours=1)
        for machine in (first, second)
        if machine.deadline_at and machine.launched_at
    ]
    assert [round(each, 1) for each in hours] == [5, 1.2]  # 0.50 at 0.10 an hour, 0.25 at 0.20


def test_a_run_whose_budget_is_spent_does_not_go_on_until_it_is_begun_again(
    client: Client, goes_on: Path
) -> None:
    flaky = FlakyProvider(client.settings)
    run, told = taken_once(client, flaky, goes_on, budget_usd=Decimal("0.44"))
    assert (run.state, flaky.launched) == (RunState.LOST, ["moon-1a"])
    assert "of the run's budget of 0.44 USD, less than an hour costs" in run.message
    assert "not going on: 0.1" in told[-1]
    assert f"less than an hour costs; cloudrun restart {run.id} grants" in told[-1]
    assert client.store.list_charges(open_only=True) == []
    run = execute.begin_again(with_provider(client.context(), flaky), run)
    assert run.budget_usd is not None
    assert Decimal("0.69") <= run.budget_usd < Decimal("0.70")
    assert supervise.attach(with_provider(client.context(), flaky), run).state is RunState.SUCCEEDED


def test_the_month_s_budget_is_asked_before_a_run_goes_on(client: Client, goes_on: Path) -> None:
    flaky = FlakyProvider(client.settings)
    client.set_budget(Decimal("0.45"))
    run, told = taken_once(client, flaky, goes_on, max_hours=1.0)
    assert (run.state, flaky.launched) == (RunState.LOST, ["moon-1a"])
    assert "this may cost 0.2333 USD" in run.message
    assert "of the month's budget: 0.4500 USD" in run.message
    assert "cloudrun config budget --month" in told[-1]
    assert client.store.list_charges(open_only=True) == []
    assert client.store.list_machines() == []


def test_the_month_s_budget_is_asked_before_the_next_candidate(client: Client, goes_on: Path) -> None:
    flaky = FlakyProvider(client.settings, full=["moon-1a"])
    client.set_budget(Decimal("0.2"))
    with pytest.raises(Refused, match=r"this may cost 0\.2333 USD"):
        taken_once(client, flaky, goes_on, max_hours=1.0)
    assert (client.run("last").state, flaky.launched) == (RunState.FAILED, [])
    assert client.store.list_charges(open_only=True) == []
