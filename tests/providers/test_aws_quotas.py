"""Quotas: which one counts a type, and offers that the account may not launch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aws_account import Account, account_of

from cloudrun import catalog
from cloudrun.models import Market, Offer
from cloudrun.providers.aws.offers import find_offers
from cloudrun.providers.aws.quotas import find_quota, quota_limits, too_small
from cloudrun.providers.base import Need
from cloudrun.sim.aws import AwsDouble

EAST, WEST = "us-east-1", "us-west-2"
P_SPOT, P_ON_DEMAND = "L-7212CCBC", "L-417A185B"

found = catalog.find_type("aws", "p2.xlarge")
assert found is not None
K80 = found


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with AwsDouble() as double:
        yield account_of(double, tmp_path / "home", monkeypatch)


@pytest.mark.parametrize(
    ("type", "spot", "on_demand"),
    [
        ("p2.xlarge", P_SPOT, P_ON_DEMAND),
        ("p3dn.24xlarge", P_SPOT, P_ON_DEMAND),
        ("p4de.24xlarge", P_SPOT, P_ON_DEMAND),
        ("p5.48xlarge", "L-C4BD4855", P_ON_DEMAND),
        ("p5en.48xlarge", "L-C4BD4855", P_ON_DEMAND),
        ("p6-b200.48xlarge", "", P_ON_DEMAND),  # sources disagree about its spot quota
        ("g4dn.xlarge", "L-3819A6DF", "L-DB2E81BA"),
        ("g6e.xlarge", "L-3819A6DF", "L-DB2E81BA"),
        ("t3.large", "L-34B43A08", "L-1216C47A"),
        ("c6i.2xlarge", "L-34B43A08", "L-1216C47A"),
        ("dl1.24xlarge", "L-85EED4F7", "L-6E869C2A"),
        ("hpc6a.48xlarge", "", ""),  # another letter than H
        ("trn1.2xlarge", "", ""),
    ],
)
def test_the_quota_that_counts_a_type(type: str, spot: str, on_demand: str) -> None:
    found = [find_quota(type, market) for market in (Market.SPOT, Market.ON_DEMAND)]
    assert [rule.code if rule else "" for rule in found] == [spot, on_demand]


def test_types_of_the_catalogue_without_a_known_quota_are_few() -> None:
    unknown = {
        known.family
        for known in catalog.list_types("aws")
        for market in (Market.SPOT, Market.ON_DEMAND)
        if find_quota(known.type, market) is None
    }
    assert unknown == {"gr6", "gr6f", "p6-b200", "p6-b300", "p6e-gb200"}


def test_limits_are_asked_once_an_hour(account: Account) -> None:
    account.double.set_quota(EAST, P_SPOT, 16)
    limits = quota_limits(account.session(), EAST, [K80], [Market.SPOT])
    assert limits[P_SPOT] == 16
    assert quota_limits(account.session(), EAST, [K80], [Market.SPOT]) == limits
    assert account.calls() == {"ListServiceQuotas": 1}
    assert quota_limits(account.session(), WEST, [K80], [Market.SPOT])[P_SPOT] != 16


def test_what_fits_and_what_is_unknown_is_not_refused() -> None:
    def judge(limits: dict[str, float], vcpus: int = 4) -> str:
        return too_small(limits, EAST, replace(K80, vcpus=vcpus), Market.SPOT)

    assert judge({P_SPOT: 4}) == ""
    assert judge({}) == ""
    assert judge({P_ON_DEMAND: 0}) == ""
    assert judge({P_SPOT: 0}, vcpus=0) == ""
    assert judge({P_SPOT: 3}) != ""


def p2(account: Account, **more: object) -> dict[tuple[str, Market], Offer]:
    """One offer of p2.xlarge for each region and market."""
    offers = find_offers(account.session(), replace(Need(type="p2.xlarge", regions=(EAST, WEST)), **more))
    return {(offer.region, offer.market): offer for offer in offers}


def test_an_offer_beyond_the_quota_names_region_limit_need_and_quota(account: Account) -> None:
    account.double.set_quota(EAST, P_SPOT, 0)
    offers = p2(account)
    refused = offers[EAST, Market.SPOT]
    assert not refused.fits
    for fact in (EAST, " 0 vCPUs", "needs 4", P_SPOT, "All P4, P3 and P2 Spot Instance Requests"):
        assert fact in refused.why_not
    assert refused.price_per_hour_usd


def test_the_markets_and_regions_are_counted_apart(account: Account) -> None:
    account.double.set_quota(EAST, P_SPOT, 0)
    account.double.set_quota(WEST, P_ON_DEMAND, 3)
    fits = {place: offer.fits for place, offer in p2(account).items()}
    assert fits == {
        (EAST, Market.SPOT): False,
        (EAST, Market.ON_DEMAND): True,
        (WEST, Market.SPOT): True,
        (WEST, Market.ON_DEMAND): False,
    }


def test_offers_that_fit_come_before_cheaper_ones_that_do_not(account: Account) -> None:
    account.double.set_quota(EAST, P_SPOT, 0)
    account.double.set_quota(WEST, P_SPOT, 0)
    offers = find_offers(account.session(), Need(type="p2.xlarge", regions=(EAST, WEST)))
    assert [offer.fits for offer in offers] == sorted((offer.fits for offer in offers), reverse=True)
    assert offers[0].market is Market.ON_DEMAND


def test_an_account_that_may_not_ask_is_refused_nothing(account: Account) -> None:
    account.double.set_quota(EAST, P_SPOT, 0)
    account.double.fault("ListServiceQuotas", "AccessDeniedException", times=None)
    assert all(offer.fits for offer in p2(account).values())


def test_a_raised_quota_is_seen_after_a_minute(account: Account) -> None:
    account.double.set_quota(EAST, P_SPOT, 0)
    assert not p2(account)[EAST, Market.SPOT].fits
    account.double.set_quota(EAST, P_SPOT, 8)
    assert not p2(account)[EAST, Market.SPOT].fits
    age_quotas(account, minutes=2)
    assert p2(account)[EAST, Market.SPOT].fits


def test_a_quota_that_refuses_nothing_is_kept_longer(account: Account) -> None:
    p2(account)
    account.calls()
    age_quotas(account, minutes=59)
    p2(account)
    assert account.calls()["ListServiceQuotas"] == 0
    age_quotas(account, minutes=61)
    p2(account)
    assert account.calls()["ListServiceQuotas"] == 2


def age_quotas(account: Account, *, minutes: float) -> None:
    """Let what is kept of quotas be that old."""
    asked_at = datetime.now(UTC) - timedelta(minutes=minutes)
    for path in (account.home / "cache" / "answers").glob("*quotas-*"):
        stored = json.loads(path.read_text())
        path.write_text(json.dumps({**stored, "asked_at": asked_at.isoformat()}))
