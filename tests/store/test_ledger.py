"""What paid things cost: opened before they exist, closed at the provider's stop time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import NOON, OFFER, make_attempt, make_charge, make_run

from cloudrun.ledger import SMALLEST_USD, at_prices, cost_usd, open_rent, open_running, run_cost_usd
from cloudrun.models import Charge, Market
from cloudrun.store import Store

PRICES = st.decimals(Decimal("0.0001"), Decimal(100), places=4)
DURATIONS = st.timedeltas(timedelta(0), timedelta(days=40))


def compute(**fields: object) -> Charge:
    """An open line of an AWS machine at 0.36 USD an hour: 0.0001 a second."""
    plain = {"quantity": Decimal(1), "unit_price_usd": Decimal("0.36"), "market": Market.ON_DEMAND}
    return make_charge(**(plain | fields))


def after(charge: Charge, passed: timedelta) -> Decimal:
    cost = cost_usd(replace(charge, closed_at=charge.opened_at + passed), now=NOON)
    assert cost is not None
    return cost


def test_open_running_takes_price_and_place_from_the_offer() -> None:
    charge, _ = open_running(OFFER, machine="bench", run="aaaa2222", at=NOON)
    assert (charge.machine, charge.run, charge.what, charge.unit) == ("bench", "aaaa2222", "compute", "hour")
    assert (charge.provider, charge.region, charge.market) == ("aws", "us-east-1", Market.SPOT)
    assert (charge.unit_price_usd, charge.price_as_of) == (OFFER.price_per_hour_usd, OFFER.price_as_of)
    assert (charge.opened_at, charge.closed_at, charge.void) == (NOON, None, False)
    assert charge.estimated  # a spot price moves
    fixed, _ = open_running(replace(OFFER, market=Market.ON_DEMAND), machine="m", run="", at=NOON)
    assert not fixed.estimated


@pytest.mark.parametrize("price", [None, Decimal(0)])
def test_a_missing_price_is_unknown_and_never_nothing(price: Decimal | None) -> None:
    charge, _ = open_running(replace(OFFER, price_per_hour_usd=price), machine="m", run="r", at=NOON)
    assert charge.unit_price_usd is None
    assert cost_usd(charge, now=NOON + timedelta(hours=1)) is None


@pytest.mark.parametrize("price", [None, Decimal(0), Decimal(5)])
def test_own_machines_cost_nothing_and_say_so(price: Decimal | None) -> None:
    offer = replace(OFFER, provider="local", market=Market.OWN, price_per_hour_usd=price)
    charges = open_running(offer, machine="m", run="r", at=NOON)
    assert [charge.unit_price_usd for charge in charges] == [Decimal(0)]
    assert run_cost_usd(charges, now=NOON + timedelta(days=3)) == 0


def test_an_open_charge_has_cost_until_now_and_a_closed_one_until_its_end() -> None:
    charge = compute()
    assert cost_usd(charge, now=NOON + timedelta(seconds=100)) == Decimal("0.01")
    assert cost_usd(charge, now=NOON + timedelta(seconds=200)) == Decimal("0.02")
    closed = replace(charge, closed_at=NOON + timedelta(seconds=100))
    assert cost_usd(closed, now=NOON + timedelta(days=9)) == Decimal("0.01")


def test_disks_cost_by_the_average_month_and_egress_by_the_piece() -> None:
    disk = compute(what="disk", unit="GB-month", quantity=Decimal(100), unit_price_usd=Decimal("0.08"))
    assert after(disk, timedelta(hours=730)) == Decimal(8)
    assert after(disk, timedelta(hours=73)) == Decimal("0.8")
    egress = compute(what="egress", unit="GB", quantity=Decimal("2.5"), unit_price_usd=Decimal("0.09"))
    assert cost_usd(egress, now=NOON) == Decimal("0.225")


def test_amounts_are_rounded_half_up_to_a_millionth_once() -> None:
    charge = compute(unit_price_usd=Decimal("0.0018"))  # 0.0000005 a second
    assert str(after(charge, timedelta(seconds=61))) == "0.000031"  # 30.5 millionths


@given(PRICES, DURATIONS, DURATIONS)
def test_cost_grows_with_time_and_is_never_negative(price: Decimal, one: timedelta, other: timedelta) -> None:
    short, long = sorted([one, other])
    charge = compute(unit_price_usd=price)
    assert 0 <= after(charge, short) <= after(charge, long)


@given(PRICES, st.integers(60, 10**6), st.integers(60, 10**6))
def test_per_second_cost_adds_up_over_splits(price: Decimal, first: int, second: int) -> None:
    charge = compute(unit_price_usd=price)
    parts = after(charge, timedelta(seconds=first)) + after(charge, timedelta(seconds=second))
    assert (
        abs(parts - after(charge, timedelta(seconds=first + second))) <= SMALLEST_USD
    )  # each rounded by half


@given(st.one_of(st.none(), PRICES), DURATIONS)
def test_void_costs_nothing_whatever_the_price(price: Decimal | None, passed: timedelta) -> None:
    assert cost_usd(compute(unit_price_usd=price, void=True), now=NOON + passed) == 0


@given(st.lists(PRICES, max_size=6), st.integers(60, 10**5))
def test_a_run_costs_the_sum_of_its_lines(prices: list[Decimal], passed_s: int) -> None:
    now = NOON + timedelta(seconds=passed_s)
    charges = [compute(unit_price_usd=price) for price in prices]
    total = run_cost_usd(charges, now=now)
    assert total == sum((cost_usd(charge, now=now) or Decimal(0) for charge in charges), Decimal(0))
    assert run_cost_usd([*charges, compute(unit_price_usd=None)], now=now) is None
    assert run_cost_usd([*charges, compute(unit_price_usd=None, void=True)], now=now) == total


def test_a_launch_that_failed_and_one_that_ran_in_the_stored_ledger(store: Store) -> None:
    """Open before it exists; void when it never came; close twice and the provider's first word stays."""
    run = make_run("aaaa2222")
    first, _ = open_running(OFFER, machine="a", run=run.id, at=NOON)
    store.add_run(run, make_attempt(run.id), [first])
    assert [charge.closed_at for charge in store.list_charges(run=run.id)] == [None]
    store.void_charge(1)
    store.add_charge(open_running(OFFER, machine="b", run=run.id, at=NOON)[0])
    stopped_at = NOON + timedelta(hours=2)
    for at in (stopped_at, stopped_at + timedelta(hours=5)):
        store.close_charge(2, at)
    later = NOON + timedelta(days=1)
    assert store.list_charges(open_only=True) == []
    assert run_cost_usd(store.list_charges(run=run.id), now=later) == Decimal("0.54")


def test_a_rented_machine_opens_a_line_for_its_address_and_its_disk() -> None:
    """Prices of cloudrun/catalog/billing.csv: 0.005 USD an hour, 0.08 USD a GB-month of 730 hours."""
    compute, address, disk = open_rent(OFFER, disk_gb=100, machine="m", run="r", at=NOON)
    assert [line.what for line in (compute, address, disk)] == ["compute", "address", "disk"]
    hours = NOON + timedelta(hours=73)
    assert cost_usd(address, now=hours) == Decimal("0.365")
    assert cost_usd(disk, now=hours) == Decimal("0.8")
    own = replace(OFFER, provider="local", market=Market.OWN)
    assert [line.what for line in open_rent(own, disk_gb=100, machine="m", run="r", at=NOON)] == ["compute"]


def test_spot_is_billed_by_the_prices_that_were_asked() -> None:
    line = replace(compute(estimated=True, market=Market.SPOT), closed_at=NOON + timedelta(hours=3))
    prices = [
        (NOON - timedelta(hours=5), Decimal("0.10")),
        (NOON + timedelta(hours=1), Decimal("0.30")),
        (NOON + timedelta(hours=9), Decimal(9)),  # after its end
    ]
    parts = at_prices(line, prices)
    assert [part.unit_price_usd for part in parts] == [Decimal("0.10"), Decimal("0.30")]
    assert run_cost_usd(parts, now=NOON) == Decimal("0.70")
    assert not any(part.estimated for part in parts)


@given(st.lists(st.tuples(st.integers(-5, 5000), PRICES), min_size=1, max_size=6), st.integers(1, 5000))
def test_split_lines_cover_the_same_seconds(prices: list[tuple[int, Decimal]], seconds: int) -> None:
    end = NOON + timedelta(seconds=seconds)
    line = replace(compute(estimated=True, market=Market.SPOT), closed_at=end)
    times = [(NOON + timedelta(seconds=at), price) for at, price in sorted(prices)]
    parts = at_prices(line, times)
    assert (parts[0].opened_at, parts[-1].closed_at) == (NOON, end)
    assert all(one.closed_at == two.opened_at for one, two in itertools.pairwise(parts))
    flat = [replace(part, unit_price_usd=Decimal(3600)) for part in parts]
    assert run_cost_usd(flat, now=end) >= seconds  # a dollar a second; the minimum counts once at most
    assert run_cost_usd(flat, now=end) <= max(seconds, 60) + 60


def test_an_estimate_is_settled_once(store: Store) -> None:
    first, _ = open_running(OFFER, machine="a", run="", at=NOON)
    line = store.add_charge(first)
    closed = store.close_charge(line.id, NOON + timedelta(hours=2))
    for price in (Decimal(1), Decimal(5)):  # the second comes too late
        store.settle_charge(line.id, at_prices(closed, [(NOON, price), (NOON + timedelta(hours=1), price)]))
    assert run_cost_usd(store.list_charges(machine="a"), now=NOON) == 2
    assert [charge.follows for charge in store.list_charges(machine="a")] == [False, True]
