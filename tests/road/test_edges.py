"""The two edges that run backward: no capacity, and preemption. Real machines, a provider that misbehaves."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from faults import wait_for
from flaky import FlakyProvider, offer, with_provider

from cloudrun import supervise
from cloudrun.client import Client
from cloudrun.errors import NoCapacity, ProviderError
from cloudrun.events import Event, LogData
from cloudrun.models import MachineState, Market, Outcome, Plan, RunState
from cloudrun.providers import PROVIDERS

COUNTS = """
    import json, os, pathlib, time
    out = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"])
    kept = out / "checkpoint" / "state.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    resume = os.environ.get("CLOUDRUN_RESUME_FROM")
    lines = json.loads((pathlib.Path(resume) / "state.json").read_text()) if resume else []
    print("from", len(lines))
    for step in range(len(lines), 8):
        lines.append({"step": step, "value": step * step})
        beside = kept.with_suffix(".tmp")
        beside.write_text(json.dumps(lines))
        beside.replace(kept)
        (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
        print("step", step)
        time.sleep(60 if step == 3 and not resume else 0.05)  # there the first machine is taken
"""


def spot_plan(client: Client, folder, *zones: tuple[str, str]) -> Plan:
    plan = client.plan(folder, type="local")
    return replace(plan, candidates=tuple(offer(zone, price) for zone, price in zones))


def test_no_capacity_takes_the_next_candidate_and_costs_nothing(client: Client, make_job) -> None:
    flaky = FlakyProvider(client.settings, full=["moon-1a"])
    ctx = with_provider(client.context(), flaky)
    plan = spot_plan(client, make_job("print(1)"), ("moon-1a", "0.1"), ("moon-1b", "0.2"))
    run = supervise.submit(ctx, plan, detach=False)
    assert run.state is RunState.SUCCEEDED
    assert flaky.launched == ["moon-1b"]
    tried = client.attempts(run.id)
    assert [(attempt.offer.zone, attempt.outcome) for attempt in tried] == [
        ("moon-1a", Outcome.NO_CAPACITY),
        ("moon-1b", Outcome.SUCCEEDED),
    ]
    refused, paid = client.store.list_charges(run=run.id)
    assert refused.void
    assert not paid.void
    assert paid.closed_at is not None
    assert run.cost_usd is not None
    assert Decimal(0) < run.cost_usd < Decimal("0.2")


def test_when_nobody_has_capacity_the_run_fails_with_the_provider_s_word(client: Client, make_job) -> None:
    flaky = FlakyProvider(client.settings, full=["moon-1a", "moon-1b"])
    plan = spot_plan(client, make_job("print(1)"), ("moon-1a", "0.1"), ("moon-1b", "0.2"))
    with pytest.raises(NoCapacity, match="moon-1b"):
        supervise.submit(with_provider(client.context(), flaky), plan, detach=False)
    run = client.run("last")
    assert (run.state, run.cost_usd) == (RunState.FAILED, Decimal(0))
    assert client.store.list_charges(open_only=True) == []
    assert client.store.list_machines() == []


def test_a_preempted_run_goes_on_elsewhere_from_its_checkpoint(client: Client, make_job) -> None:
    flaky = FlakyProvider(client.settings)
    seen: list[bytes] = []

    def preempt_once(event: Event) -> None:
        if not isinstance(event, LogData):
            return
        seen.append(event.data)
        if b"step 3" in b"".join(seen) and not flaky.taken:
            run = client.run("last")
            wait_for((client.files(run.id).checkpoint / "state.json").exists)
            flaky.take(client.machine(run.machine))

    ctx = replace(with_provider(client.context(), flaky), on_event=preempt_once)
    plan = spot_plan(client, make_job(COUNTS, resume=True), ("moon-1a", "0.1"), ("moon-1b", "0.2"))
    run = supervise.submit(ctx, plan, detach=False)

    assert run.state is RunState.SUCCEEDED
    assert flaky.launched == ["moon-1a", "moon-1b"]  # not the zone that just took it
    first, second = client.attempts(run.id)
    assert (first.outcome, second.outcome) == (Outcome.PREEMPTED, Outcome.SUCCEEDED)
    assert b"from 0" not in client.files(run.id).log(2).read_bytes()  # it resumed
    metrics = (client.files(run.id).outputs / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in metrics] == [{"step": n, "value": n * n} for n in range(8)]
    assert client.store.find_machine(first.machine).state is MachineState.TERMINATED
    closed = [charge.closed_at for charge in client.store.list_charges(run=run.id)]
    assert all(closed)
    assert closed[0] == flaky.taken[first.machine]  # the provider's own stop time


def test_a_provider_that_is_only_planned_for_is_refused_before_anything_is_kept(
    client: Client, make_job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(PROVIDERS, "azure")
    plan = client.plan(make_job("print(1)"), type="NC6", market=Market.SPOT)
    with pytest.raises(ProviderError, match="azure"):
        client.submit(plan)
    assert client.runs() == []
    assert client.store.list_charges() == []
