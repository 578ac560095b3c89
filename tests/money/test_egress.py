"""What comes home over the internet: by steps of a month's price, once, as an estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from commandline import Cli
from hypothesis import given
from hypothesis import strategies as st
from money_samples import OFFER, START, a_charge, a_run, an_attempt

from cloudrun import charging, measured
from cloudrun.billing import egress_parts, egress_usd
from cloudrun.cautions import egress_warnings
from cloudrun.client import Client
from cloudrun.errors import ProviderError
from cloudrun.keptdata import add_place
from cloudrun.ledger import run_cost_usd, sent_home
from cloudrun.models import DataInput, Market, Offer
from cloudrun.store import Store

GIGABYTES = st.decimals(Decimal(0), Decimal(200_000), places=3)
BYTES = st.integers(0, 10**15)


@given(st.sampled_from(["aws", "azure"]), GIGABYTES, GIGABYTES)
def test_what_is_sent_in_two_parts_costs_what_it_costs_in_one(
    provider: str, first: Decimal, second: Decimal
) -> None:
    later = egress_parts(provider, first, second)
    whole = egress_usd(provider, first + second)
    assert later is not None
    assert whole == (egress_usd(provider, first) or 0) + sum(gb * price for gb, price in later)
    assert sum(gb for gb, _ in later) == second
    prices = [price for _, price in later]
    assert all(gb > 0 for gb, _ in later)
    assert prices[1:] == sorted(prices[1:], reverse=True)  # the first may be the free one


@given(BYTES, GIGABYTES)
def test_lines_hold_every_megabyte_and_are_estimates(sent_bytes: int, before: Decimal) -> None:
    lines = sent_home(OFFER, sent_bytes, before_gb=before, machine="m", run="r", at=START)
    assert abs(sum(line.quantity for line in lines) * 10**9 - sent_bytes) <= 500_000
    assert all((line.what, line.unit, line.estimated) == ("egress", "GB", True) for line in lines)
    assert all(line.closed_at == line.opened_at == START for line in lines)
    cost = run_cost_usd(lines, now=START)
    assert cost is not None
    assert 0 <= cost <= Decimal("0.09") * (Decimal(sent_bytes) / 10**9 + 1)


def test_own_machines_and_unknown_providers_have_no_such_line() -> None:
    own = replace(OFFER, market=Market.OWN)
    for offer in (own, Offer("floydhub", "", "G1", Market.ON_DEMAND, Decimal(1))):
        assert sent_home(offer, 10**12, before_gb=Decimal(0), machine="m", run="r", at=START) == []


def test_what_came_home_is_charged_once_with_the_free_part_of_the_month(client: Client) -> None:
    ctx, store = client.context(), client.store
    attempt = an_attempt("aaaa2222")
    store.add_run(a_run("aaaa2222"), attempt, [])
    now = datetime.now(UTC)
    begin = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    sent = {"what": "egress", "unit": "GB", "unit_price_usd": Decimal(0)}
    for at, gb, provider in [
        (begin, 60, "aws"),
        (begin, 90, "azure"),
        (begin - timedelta(seconds=1), 99, "aws"),
    ]:
        store.add_charge(
            a_charge(**sent, quantity=Decimal(gb), opened_at=at, closed_at=at, provider=provider)
        )
    assert store.sent_gb("aws", begin) == 60  # not the other cloud's, nor last month's
    for received in (30 * 10**9, 20 * 10**9):  # a checkpoint, and the outputs
        store.note_received("aaaa2222", 1, received)
    for _ in range(2):
        charging.charge_received(ctx, attempt)
    lines = store.list_charges(run="aaaa2222")
    assert [(line.quantity, line.unit_price_usd) for line in lines] == [(40, 0), (10, Decimal("0.09"))]
    assert store.list_attempts("aaaa2222")[0].received_bytes == 0
    store.charge_received("aaaa2222", 1, 5, lines)  # another process was first
    assert len(store.list_charges(run="aaaa2222")) == 2
    assert store.spent_in_all().estimated == 900_000


def test_a_report_shows_it_as_an_estimate(cli: Cli, store: Store) -> None:
    egress = a_charge(what="egress", unit="GB", quantity=Decimal(30), unit_price_usd=Decimal("0.09"),
                      closed_at=START, estimated=True)  # fmt: skip
    store.add_charges([a_charge(), egress])
    (row,) = cli("cost", "report", "--by", "machine", "--json").json["rows"]
    assert (row["compute_usd"], row["other_usd"], row["estimated_usd"]) == (0.36, 2.7, 2.7)
    head, line = cli("cost", "report", "--by", "machine").out.splitlines()[:2]
    assert ("OTHER" in head, "ESTIMATED" in head, line.split()[-1]) == (True, True, "2.70")


def test_a_comparison_with_a_run_takes_what_it_sent_home(cli: Cli, store: Store) -> None:
    sent = [a_charge(what="egress", unit="GB", quantity=Decimal(gb), run="aaaa2222", closed_at=START)
            for gb in (100, 10)]  # fmt: skip
    store.add_run(a_run("aaaa2222", outputs_bytes=5 * 10**9), an_attempt("aaaa2222"), sent)
    store.add_run(a_run("bbbb3333", outputs_bytes=110 * 10**9), an_attempt("bbbb3333"), [])
    for run in ("aaaa", "bbbb"):  # of the second, on an own machine, only its outputs are known
        found = cli("cost", "compare", "--like", run, "--type", "p2.xlarge", "--on-demand", "--json").json
        assert found["egress_gb"] == 110
        (p2,) = [each for each in found["alternatives"] if each["kind"] == "offer"]
        assert p2["egress_usd"] == 0.9
    asked = ("cost", "compare", "--like", "aaaa", "--type", "p2.xlarge", "--egress", "0", "--json")
    assert cli(*asked).json["egress_gb"] == 0
    assert "110.0 GB sent home" in cli("cost", "compare", "--like", "aaaa").err


# --- by way of a bucket ------------------------------------------------------------------


@dataclass
class Bucket:
    """As far as the ledger looks at one."""

    url: str
    region: str = ""


class Unasked(Bucket):
    """Of one that does not answer."""

    def __getattribute__(self, name: str) -> str:
        if name == "region":
            raise ProviderError("s3 does not answer", hint="try again")
        return str(super().__getattribute__(name))


@pytest.mark.parametrize(
    ("bucket", "what", "usd"),
    [
        (Bucket("s3://kept/p", "us-east-1"), None, "0"),  # where the machine is
        (Bucket("s3://kept/p", "us-west-2"), ("transfer", "aws"), "2.2"),
        (Unasked("s3://kept/p"), None, "0"),
        (Bucket("az://kept/p"), ("egress", "azure"), "0.87"),  # 100 GB of it free
    ],
)
def test_data_that_a_machine_fetches_is_paid_to_who_sends_it(
    client: Client, bucket: Any, what: tuple[str, str] | None, usd: str
) -> None:
    attempt = an_attempt("aaaa2222")
    client.store.add_run(a_run("aaaa2222"), attempt, [])
    charging.charge_moved(client.context(), attempt, bucket, 110 * 10**9, to_bucket=False)
    lines = client.store.list_charges(run="aaaa2222")
    assert {(line.what, line.provider) for line in lines} == ({what} if what else set())
    assert run_cost_usd(lines, now=START) == Decimal(usd)
    assert client.store.sent_gb("aws", START - timedelta(days=1)) == 0  # its steps are others


def test_what_a_machine_stored_itself_is_sent_twice(client: Client) -> None:
    """To the bucket, and home from there; by a cloud each, or within one region once."""
    cases: list[tuple[str, Any, list[tuple[str, int]]]] = [
        ("aaaa2222", Bucket("az://kept/p"), [("aws", 30), ("azure", 20)]),
        ("bbbb3333", Bucket("s3://kept/p", "us-east-1"), [("aws", 20)]),
    ]
    for run, bucket, sent in cases:
        attempt = an_attempt(run)
        client.store.add_run(a_run(run, outputs_bytes=1), attempt, [])
        moved = {"stored_bytes": 30 * 10**9, "fetched_bytes": 20 * 10**9}
        charging.charge_outbox(client.context(), attempt, bucket, **moved)
        lines = client.store.list_charges(run=run)
        assert [(line.provider, line.quantity) for line in lines] == sent
        assert all((line.what, line.estimated) == ("egress", True) for line in lines)
    assert measured.sent_gb(client.store, client.run("aaaa2222")) == 30


def test_a_plan_warns_of_data_at_another_cloud(client: Client) -> None:
    data = DataInput(mount="horses", digest="ab" * 32, size_bytes=110 * 10**9, name="horses", version="v1")
    add_place(client.settings, data.digest, "az://data/p")
    assert [*egress_warnings(client.settings, "local", [data])] == []
    (told,) = egress_warnings(client.settings, "aws", [data])
    assert told.startswith("horses:v1 lies at azure, which takes about 0.87 USD for sending it to aws")
    add_place(client.settings, data.digest, "s3://data/p")
    assert [*egress_warnings(client.settings, "aws", [data])] == []
