"""What paid things cost: opened before they exist, closed at the provider's stop time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import NOON, OFFER, make_attempt, make_charge, make_run

from cloudrun.ledger import SMALLEST_USD, cost_usd, open_compute, run_cost_usd
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


def test_open_compute_takes_price_and_place_from_the_offer() -> None:
    (charge,) = open_compute(OFFER, machine="bench", run="aaaa2222", at=NOON)
    assert (charge.machine, charge.run, charge.what, charge.unit) == ("bench", "aaaa2222", "compute", "hour")
    assert (charge.provider, charge.region, charge.market) == ("aws", "us-east-1", Market.SPOT)
    assert (charge.unit_price_usd, charge.price_as_of) == (OFFER.price_per_hour_usd, OFFER.price_as_of)
    assert (charge.opened_at, charge.closed_at, charge.void) == (NOON, None, False)
    assert charge.estimated  # a spot price moves
    (fixed,) = open_compute(replace(OFFER, market=Market.ON_DEMAND), machine="m", run="", at=NOON)
    assert not fixed.estimated


@pytest.mark.parametrize("price", [None, Decimal(0)])
def test_a_missing_price_is_unknown_and_never_nothing(price: Decimal | None) -> None:
    (charge,) = open_compute(replace(OFFER, price_per_hour_usd=price), machine="m", run="r", at=NOON)
    assert charge.unit_price_usd is None
    assert cost_usd(charge, now=NOON + timedelta(hours=1)) is None


@pytest.mark.parametrize("price", [None, Decimal(0), Decimal(5)])
def test_own_machines_cost_nothing_and_say_so(price: Decimal | None) -> None:
    offer = replace(OFFER, provider="local", market=Market.OWN, price_per_hour_usd=price)
    charges = open_compute(offer, machine="m", run="r", at=NOON)
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
    store.add_run(run, make_attempt(run.id), open_compute(OFFER, machine="a", run=run.id, at=NOON))
    assert [charge.closed_at for charge in store.list_charges(run=run.id)] == [None]
    store.void_charge(1)
    for charge in open_compute(OFFER, machine="b", run=run.id, at=NOON):
        store.add_charge(charge)
    stopped_at = NOON + timedelta(hours=2)
    for at in (stopped_at, stopped_at + timedelta(hours=5)):
        store.close_charge(2, at)
    later = NOON + timedelta(days=1)
    assert store.list_charges(open_only=True) == []
    assert run_cost_usd(store.list_charges(run=run.id), now=later) == Decimal("0.54")
