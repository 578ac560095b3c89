"""The same work elsewhere: the cases of 2017 to the yen, and what is never assumed in silence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from money_samples import OFFER, a_charge

from cloudrun.comparing import (
    OLD_PRICES_DAY,
    SAME_HOURS,
    Alternative,
    Speed,
    Work,
    cheapest_regions,
    compare,
    load_old_offers,
    load_services,
    of_offer,
    start_of,
)
from cloudrun.config import DEFAULT_RATES
from cloudrun.ledger import run_cost_usd
from cloudrun.models import Market
from cloudrun.ownpc import OwnPc

YEN = Decimal(110)  # for one US dollar: the rate behind the figures of 2017
IN_2017 = start_of(OLD_PRICES_DAY)
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
K80 = Work(Decimal(45), gpu="K80")


def floydhub() -> Alternative:
    (found,) = load_services(DEFAULT_RATES)
    return found


def pc(watts: int, **fields: Decimal) -> OwnPc:
    return OwnPc(Decimal(watts), Decimal(28) / YEN, Decimal(120_000) / YEN, **fields)


# --- the figures of 2017 -----------------------------------------------------------------


@pytest.mark.parametrize(("hours", "total", "per_hour"), [(45, "7.71", "0.171"), (143, "28.04", "0.196")])
def test_two_real_bills(hours: int, total: str, per_hour: str) -> None:
    """45 h of spot cost 7.71 USD, 143 h cost 28.04 USD: as a line beside the others, and in the ledger."""
    work = Work(Decimal(hours), gpu="K80")
    (paid,) = compare(work, [], paid=[("the bill", Decimal(total))], at=IN_2017)
    assert paid.total_usd == Decimal(total)
    assert paid.price_per_hour_usd is not None
    assert str(paid.price_per_hour_usd.quantize(Decimal("0.001"))) == per_hour
    line = a_charge(
        market=Market.SPOT,
        unit_price_usd=Decimal(total) / hours,
        opened_at=IN_2017,
        closed_at=IN_2017 + timedelta(hours=hours),
    )
    assert run_cost_usd([line], now=NOW) == Decimal(total)


def test_floydhub_against_g2_in_yen() -> None:
    """47.52 against 98.78 JPY an hour."""
    old = [each for each in load_old_offers(DEFAULT_RATES) if each.type == "g2.2xlarge" and not each.region]
    found = compare(Work(Decimal(1), gpu="K80"), old, services=[floydhub()], at=IN_2017)
    in_yen = {each.name: (each.price_per_hour_usd or 0) * YEN for each in found}
    assert {name: str(round(price, 2)) for name, price in in_yen.items()} == {
        "G1 (K80)": "47.52",
        "g2.2xlarge": "98.78",
    }
    assert found[0].price_as_of == "2017"
    assert found[0].retired


@pytest.mark.parametrize(("watts", "yen"), [(350, "9.8"), (500, "14")])
def test_electricity_of_an_own_pc(watts: int, yen: str) -> None:
    assert pc(watts).electricity_per_hour_usd * YEN == pytest.approx(Decimal(yen))


def test_an_own_pc_pays_off_beside_floydhub_after_about_3580_hours() -> None:
    """120,000 JPY / (47.52 - 14 JPY an hour) = 3,580 h: the 500 W system, at 110 JPY for one dollar."""
    found = compare(K80, [], services=[floydhub()], own_pc=pc(500), at=IN_2017)
    (service,) = [each for each in found if each.kind == "service"]
    assert service.break_even_hours is not None
    assert round(service.break_even_hours, -1) == 3580
    (smaller,) = [each for each in compare(K80, [], services=[floydhub()], own_pc=pc(350), at=IN_2017)
                  if each.kind == "service"]  # fmt: skip
    assert smaller.break_even_hours is not None
    assert round(smaller.break_even_hours) == 3181  # the 350 W system saves more an hour


# --- billing, disk and address -----------------------------------------------------------


def test_hours_are_billed_by_the_rule_of_the_day() -> None:
    work = Work(Decimal("1.25"), gpu="K80")
    assert of_offer(work, OFFER, at=IN_2017).compute_usd == Decimal("0.40")  # two whole hours
    assert of_offer(work, OFFER, at=NOW).compute_usd == Decimal("0.25")
    short = Work(Decimal(1) / 3600, gpu="K80")
    assert of_offer(short, OFFER, at=NOW).billed_hours == Decimal(60) / 3600


def test_disk_address_and_egress_are_in_the_total() -> None:
    """Prices of catalog/billing.csv and egress.csv: 0.08 USD a GB-month of 730 h, 0.005 an hour, 0.09 a GB
    after 100 free ones."""
    work = Work(Decimal(73), gpu="K80", disk_gb=100, egress_gb=Decimal(110))
    found = of_offer(work, OFFER, at=NOW)
    assert (found.compute_usd, found.disk_usd) == (Decimal("14.6"), Decimal("0.8"))
    assert (found.address_usd, found.egress_usd) == (Decimal("0.365"), Decimal("0.9"))
    assert found.total_usd == Decimal("16.665")
    assert of_offer(work, OFFER, at=IN_2017).address_usd == 0  # addresses were free


def test_an_unknown_price_stays_unknown_and_comes_last() -> None:
    unknown = replace(OFFER, price_per_hour_usd=None, type="unknown")
    found = compare(Work(Decimal(1), disk_gb=100), [unknown, OFFER], own_pc=pc(350), at=NOW)
    assert [each.name for each in found][-1] == "unknown"
    assert found[-1].total_usd is None
    assert found[-1].break_even_hours is None


def test_one_line_a_type_and_market_in_its_cheapest_region() -> None:
    dear = replace(OFFER, region="eu-west-1", price_per_hour_usd=Decimal(1))
    fixed = replace(OFFER, market=Market.ON_DEMAND)
    assert cheapest_regions([OFFER, dear, fixed]) == [OFFER, fixed]


# --- speed -------------------------------------------------------------------------------


def test_another_gpu_is_never_silently_as_fast() -> None:
    other = replace(OFFER, gpu="T4")
    assert SAME_HOURS in of_offer(K80, other, at=NOW).notes
    assert SAME_HOURS not in of_offer(K80, OFFER, at=NOW).notes
    assert SAME_HOURS in of_offer(Work(Decimal(1)), OFFER, at=NOW).notes  # nobody knows on what
    faster = replace(K80, speeds={"t4": Speed(Decimal("1.8"), "stated")})
    found = of_offer(faster, other, at=NOW)
    assert found.hours == Decimal(25)
    assert found.compute_usd == Decimal(5)
    assert SAME_HOURS not in found.notes


def test_gpus_that_lie_idle_are_named() -> None:
    assert "1 of its 8 GPUs used" in of_offer(K80, replace(OFFER, gpu_count=8), at=NOW).notes


def test_break_even_counts_the_speed_of_both() -> None:
    """A computer twice as fast as what is rented saves twice its price an hour."""
    plain = pc(350).break_even_hours(Decimal("0.5"))
    twice = pc(350).break_even_hours(Decimal("0.25"), Decimal(2))
    assert plain == twice
    work = replace(K80, speeds={"gtx1080": Speed(Decimal(2), "stated")})
    own = replace(pc(350), gpu="GTX1080")
    offer, mine = sorted(compare(work, [OFFER], own_pc=own, at=NOW), key=lambda each: each.kind != "offer")
    assert mine.hours == Decimal("22.5")
    saved = (offer.total_usd or 0) / 45 * 2 - own.electricity_per_hour_usd
    assert offer.break_even_hours == pytest.approx((own.purchase_usd or 0) / saved)


def test_a_purchase_is_spread_over_a_stated_lifetime() -> None:
    own = pc(350, lifetime_hours=Decimal(10_000))
    assert own.purchase_per_hour_usd * YEN == pytest.approx(Decimal(12))
    (found,) = compare(K80, [], own_pc=own, at=NOW)
    assert (found.total_usd or 0) * YEN == pytest.approx(Decimal("21.8") * 45)


@given(
    st.decimals(Decimal("0.01"), Decimal(1000), places=2),
    st.decimals(Decimal("0.01"), Decimal(1000), places=2),
    st.integers(0, 500),
)
def test_more_hours_never_cost_less(one: Decimal, other: Decimal, disk_gb: int) -> None:
    short, long = sorted([one, other])
    costs = [of_offer(Work(hours, disk_gb=disk_gb), OFFER, at=NOW).total_usd for hours in (short, long)]
    assert costs[0] is not None
    assert costs[1] is not None
    assert 0 <= costs[0] <= costs[1]
