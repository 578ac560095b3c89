"""What a run on machines of its own costs besides them, on the whole road: what it sends home."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from flaky import FlakyProvider, offer, with_provider

from cloudrun import charging, ledger, supervise
from cloudrun.client import Client
from cloudrun.models import RunState

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
