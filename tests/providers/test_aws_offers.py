"""Offers, prices and images: live where the account can ask, else the catalogue's with its date."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from aws_account import Account, account_of, use_keys, use_nothing
from samples import A_MACHINE

from cloudrun import catalog
from cloudrun.catalog import wanted_types
from cloudrun.catalog.loader import read_csv
from cloudrun.config import Settings
from cloudrun.errors import Credentials, ImageNotFound, NotFound, ProviderError
from cloudrun.models import GpuNeed, Market, Offer, Stack
from cloudrun.providers.answers import OLDEST, kept, side_by_side
from cloudrun.providers.aws.images import find_image, login_user
from cloudrun.providers.aws.offers import REHEARSAL, find_offers
from cloudrun.providers.aws.prices import on_demand_prices, spot_prices
from cloudrun.providers.aws.session import Session
from cloudrun.providers.base import Need
from cloudrun.sim.aws import AwsDouble
from cloudrun.sim.aws.seeds import image_id
from cloudrun.stacks import list_stacks, load_stack

EAST, WEST = "us-east-1", "us-west-2"
K80 = Need(type="p2.xlarge", regions=(EAST,))
TODAY_OR_JUST_BEFORE = 1  # days: a test may run over midnight


@pytest.fixture(scope="module")
def double() -> Iterator[AwsDouble]:
    with AwsDouble() as double:
        yield double


@pytest.fixture
def account(double: AwsDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    return account_of(double, tmp_path / "home", monkeypatch)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Keys, and nobody who answers."""
    use_keys(monkeypatch, tmp_path, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    return Session(Settings(home=tmp_path / "home"))


def answers_of(session: Session) -> Path:
    return session.settings.home / "cache" / "answers"


def of(offers: list[Offer], market: Market) -> list[Offer]:
    return [offer for offer in offers if offer.market is market]


def is_todays(offer: Offer) -> bool:
    assert offer.price_as_of is not None
    return (datetime.now(UTC).date() - offer.price_as_of).days <= TODAY_OR_JUST_BEFORE


# --- live ---


def test_every_zone_is_offered_in_both_markets_at_todays_prices(account: Account) -> None:
    offers = find_offers(account.session(), K80)
    zones = {f"us-east-1{letter}" for letter in "abcde"}
    assert {offer.zone for offer in of(offers, Market.SPOT)} == zones
    assert {offer.zone for offer in of(offers, Market.ON_DEMAND)} == zones
    assert {offer.price_per_hour_usd for offer in of(offers, Market.ON_DEMAND)} == {Decimal("0.9")}
    assert all(offer.fits and is_todays(offer) and not offer.warning for offer in offers)
    prices = [offer.price_per_hour_usd for offer in offers]
    assert prices == sorted(price for price in prices if price)


def test_a_spot_price_is_that_of_its_zone_now(account: Account) -> None:
    account.double.set_spot_price("p2.8xlarge", "us-east-1c", "0.1111")
    cheapest = find_offers(account.session(), Need(type="p2.8xlarge", regions=(EAST,)))[0]
    assert (cheapest.zone, cheapest.price_per_hour_usd) == ("us-east-1c", Decimal("0.1111"))


def test_an_offer_carries_the_facts_of_its_type(account: Account) -> None:
    offer = find_offers(account.session(), K80)[0]
    known = catalog.find_type("aws", "p2.xlarge")
    assert known is not None
    assert (offer.provider, offer.gpu, offer.gpu_count, offer.gpu_memory_gib) == ("aws", "K80", 1, 12.0)
    assert (offer.gpu_capability, offer.vcpus, offer.memory_gib) == (3.7, known.vcpus, known.memory_gib)


def test_planning_twice_asks_once(account: Account) -> None:
    for at, letter in enumerate("abcde"):  # where two zones cost the same, their scores are asked for too
        account.double.set_spot_price("p2.xlarge", f"us-east-1{letter}", f"0.3{at}")
    first = find_offers(account.session(), K80)
    assert account.calls() == {
        "DescribeInstanceTypeOfferings": 1,
        "DescribeSpotPriceHistory": 1,
        "ListServiceQuotas": 1,
        "GetProducts": 1,
    }
    assert find_offers(account.session(), K80) == first
    assert account.calls() == {}


@pytest.mark.parametrize(
    ("market", "other", "needless"),
    [
        (Market.SPOT, Market.ON_DEMAND, "GetProducts"),
        (Market.ON_DEMAND, Market.SPOT, "DescribeSpotPriceHistory"),
    ],
)
def test_one_market_asks_for_that_market_only(
    account: Account, market: Market, other: Market, needless: str
) -> None:
    offers = find_offers(account.session(), replace(K80, market=market))
    assert offers
    assert not of(offers, other)
    assert needless not in account.calls()


def test_many_types_take_one_call_a_region(account: Account) -> None:
    need = Need(market=Market.SPOT, regions=(EAST, WEST))
    offers = find_offers(account.session(), need)
    assert len({offer.type for offer in offers}) > 20
    assert account.calls() == {
        "DescribeInstanceTypeOfferings": 2,
        "DescribeSpotPriceHistory": 2,
        "ListServiceQuotas": 2,
    }


def test_without_regions_all_that_the_account_may_use_are_asked(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [EAST, WEST, "eu-north-1"]  # the double's account may use 38: these show as much
    every = Session.regions
    monkeypatch.setattr(Session, "regions", lambda session: [each for each in every(session) if each in some])
    need = Need(type="p2.xlarge", market=Market.SPOT)
    offers = find_offers(account.session(), need)
    calls = account.calls()
    assert (calls["DescribeRegions"], calls["DescribeInstanceTypeOfferings"]) == (1, 3)
    assert {offer.region for offer in offers} == {EAST, WEST}
    assert all(offer.fits for offer in offers)  # regions without it are no news when nobody named them
    assert find_offers(account.session(), need) == offers
    assert account.calls() == {}


def test_a_type_that_a_named_region_does_not_have(account: Account) -> None:
    need = Need(type="p2.xlarge", market=Market.SPOT, regions=(EAST, "eu-north-1"))
    offers = find_offers(account.session(), need)
    [absent] = [offer for offer in offers if offer.region == "eu-north-1"]
    assert not absent.fits
    assert absent.price_per_hour_usd is None
    assert absent.why_not.startswith("AWS does not offer it in eu-north-1: p2.xlarge was retired")
    assert offers[-1] is absent
    assert offers[0].fits


def test_a_retired_type_that_is_gone_everywhere_names_its_successors_once(account: Account) -> None:
    offers = find_offers(account.session(), Need(type="p3.2xlarge", regions=(EAST, WEST)))
    assert [offer.market for offer in offers] == [Market.ON_DEMAND, Market.SPOT]
    for offer in offers:
        assert not offer.fits
        assert "any of the 2 regions asked" in offer.why_not
        assert catalog.successors("aws", "p3.2xlarge")[0] in offer.why_not


def test_equal_spot_prices_are_ordered_by_where_there_is_room(account: Account) -> None:
    for letter in "abcde":
        account.double.set_spot_price("p2.16xlarge", f"us-east-1{letter}", "0.3")
    account.double.set_capacity("p2.16xlarge", "us-east-1a", "spot", 0)
    account.double.set_capacity("p2.16xlarge", "us-east-1b", "spot", 1)
    need = Need(type="p2.16xlarge", market=Market.SPOT, regions=(EAST,))
    assert [offer.zone[-1] for offer in find_offers(account.session(), need)] == ["c", "d", "e", "b", "a"]
    calls = account.calls()
    assert (calls["GetSpotPlacementScores"], calls["DescribeAvailabilityZones"]) == (1, 1)
    find_offers(account.session(), need)
    assert account.calls() == {}


def test_different_prices_ask_for_no_scores(account: Account) -> None:
    for place, letter in enumerate("abc"):
        account.double.set_spot_price("p2.16xlarge", f"us-west-2{letter}", f"0.3{place}")
    offers = find_offers(account.session(), Need(type="p2.16xlarge", market=Market.SPOT, regions=(WEST,)))
    assert len(offers) > 1
    assert account.calls()["GetSpotPlacementScores"] == 0


def test_without_the_right_to_ask_for_scores_the_order_is_that_of_names(account: Account) -> None:
    for letter in "cba":
        account.double.set_spot_price("p2.16xlarge", f"eu-west-1{letter}", "0.3")
    account.double.set_capacity("p2.16xlarge", "eu-west-1a", "spot", 0)
    account.double.fault("GetSpotPlacementScores", "UnauthorizedOperation", times=None)
    need = Need(type="p2.16xlarge", market=Market.SPOT, regions=("eu-west-1",))
    assert [offer.zone[-1] for offer in find_offers(account.session(), need)] == list("abc")
    assert account.calls()["GetSpotPlacementScores"] == 1


def test_a_rehearsal_says_so(account: Account) -> None:
    offers = find_offers(account.session(sim=True), K80)
    assert {offer.warning for offer in offers} == {REHEARSAL}


def test_a_region_that_does_not_exist(account: Account) -> None:
    with pytest.raises(NotFound) as caught:
        find_offers(account.session(), replace(K80, regions=("us-esat-1",)))
    assert "us-east-1" in caught.value.hint
    assert account.calls() == {}


def test_a_type_that_does_not_exist(account: Account) -> None:
    assert find_offers(account.session(), Need(type="p9.tiny", regions=(EAST,))) == []
    assert account.calls() == {}


# --- what cannot be asked ---


def shipped(need: Need) -> set[tuple[str, Market, Decimal | None, date | None]]:
    offers = catalog.load_offers(provider="aws", type=need.type, market=need.market, regions=need.regions)
    return {(offer.region, offer.market, offer.price_per_hour_usd, offer.price_as_of) for offer in offers}


@pytest.mark.parametrize("regions", [(), (EAST, WEST), ("eu-north-1",)])
def test_without_credentials_the_catalogue_answers(
    regions: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_nothing(monkeypatch, tmp_path)
    monkeypatch.setattr(Session, "client", lambda *_: pytest.fail("AWS was asked"))
    need = Need(type="p2.xlarge", regions=regions)
    offers = find_offers(Session(Settings(home=tmp_path)), need)
    found = {(offer.region, offer.market, offer.price_per_hour_usd, offer.price_as_of) for offer in offers}
    assert found == shipped(need)
    assert all(offer.fits and not offer.zone for offer in offers)


def test_without_credentials_every_gpu_type_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_nothing(monkeypatch, tmp_path)
    offers = find_offers(Session(Settings(home=tmp_path)), Need())
    gpus = {known.type for known in catalog.list_types("aws") if known.gpu_count}
    assert {offer.type for offer in offers} == gpus


def test_where_nobody_answers_the_catalogue_does(session: Session) -> None:
    offers = find_offers(session, K80)
    assert {(offer.zone, offer.price_per_hour_usd) for offer in of(offers, Market.ON_DEMAND)} == {
        ("", Decimal("0.9"))
    }


def test_a_region_that_gives_no_answer_is_not_asked_on(account: Account) -> None:
    account.double.fault("DescribeInstanceTypeOfferings", "NotThisTime", times=None)
    offers = find_offers(account.session(), replace(K80, market=Market.SPOT))
    assert [(offer.zone, offer.price_as_of) for offer in offers] == [("", date(2024, 2, 21))]
    assert account.calls() == {"DescribeInstanceTypeOfferings": 1}


def test_keys_without_a_region_ask_in_the_regions_named(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert {offer.zone for offer in find_offers(account.session(), K80)} >= {"us-east-1a"}
    assert {offer.zone for offer in find_offers(account.session(), Need(type="p2.xlarge"))} == {""}


def test_a_right_that_is_missing_costs_only_its_own_answer(account: Account) -> None:
    account.double.fault("GetProducts", "AccessDeniedException", times=None)
    offers = find_offers(account.session(), K80)
    assert {offer.zone[-1] for offer in offers} == set("abcde")
    [(price, as_of)] = {(o.price_per_hour_usd, o.price_as_of) for o in of(offers, Market.ON_DEMAND)}
    assert (price, as_of) == (Decimal("0.9"), date(2026, 7, 20))
    assert all(is_todays(offer) for offer in of(offers, Market.SPOT))


def test_zones_are_known_from_spot_prices_too(account: Account) -> None:
    account.double.fault("DescribeInstanceTypeOfferings", "UnauthorizedOperation", times=None)
    offers = find_offers(account.session(), K80)
    assert {offer.zone[-1] for offer in offers} == set("abcde")
    assert all(is_todays(offer) for offer in offers)


def test_spot_prices_that_may_not_be_asked_are_the_catalogues(account: Account) -> None:
    account.double.fault("DescribeSpotPriceHistory", "UnauthorizedOperation", times=None)
    offers = of(find_offers(account.session(), K80), Market.SPOT)
    assert {offer.zone[-1] for offer in offers} == set("abcde")
    assert {(o.price_per_hour_usd, o.price_as_of) for o in offers} == {(Decimal("0.387"), date(2024, 2, 21))}


def test_a_refusal_is_not_kept(account: Account) -> None:
    account.double.fault("GetProducts", "AccessDeniedException", times=1)
    assert not any(is_todays(offer) for offer in of(find_offers(account.session(), K80), Market.ON_DEMAND))
    assert all(is_todays(offer) for offer in of(find_offers(account.session(), K80), Market.ON_DEMAND))


def test_throttling_is_waited_out(account: Account) -> None:
    account.double.throttle("DescribeSpotPriceHistory", times=1)
    offers = of(find_offers(account.session(), K80), Market.SPOT)
    assert all(is_todays(offer) for offer in offers)
    assert account.calls()["DescribeSpotPriceHistory"] == 2


# --- which types ---


def test_only_types_that_do_are_asked_for() -> None:
    need = Need(gpu=GpuNeed(count=2, min_memory_gib=16, min_capability=7.0))
    types = wanted_types("aws", need.type, need.gpu)
    assert {"g4dn.12xlarge", "p3.8xlarge"} <= {known.type for known in types}
    assert all(known.gpu_count >= 2 and known.gpu_memory_gib >= 16 for known in types)
    assert all((known.gpu_capability or 0) >= 7 for known in types)
    assert not any(known.gpu_count == 0 for known in wanted_types("aws", "", GpuNeed()))


# --- prices ---


class PriceList:
    """A session whose Pricing API answers with these texts."""

    def __init__(self, home: Path, items: list[str]) -> None:
        self.settings = Settings(home=home)
        self.items = items

    def fingerprint(self) -> str:
        return "test"

    def client(self, service: str, region: str) -> PriceList:
        assert service == "pricing"
        return self

    def get_paginator(self, operation: str) -> PriceList:
        assert operation == "get_products"
        return self

    def paginate(self, **asked: object) -> list[dict[str, list[str]]]:
        return [{"PriceList": self.items}]


def product(region: str, usd: str, *, unit: str = "Hrs", **attributes: str) -> str:
    dimension = {"unit": unit, "pricePerUnit": {"USD": usd}}
    return json.dumps(
        {
            "product": {"attributes": {"regionCode": region, **attributes}},
            "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}},
        }
    )


def test_what_is_no_plain_price_of_a_region_is_left_out(tmp_path: Path) -> None:
    items = [
        product("us-east-1", "10.0000000000"),
        product("us-east-2", "0.0000000000"),  # not priced
        *(product("sa-east-1", text) for text in ("-1.0", "NaN", "Infinity", "", "free")),
        product("us-west-2", "1.5000000000", locationType="AWS Local Zone"),
        product("us-west-1", "2.2500000000", locationType="AWS Region", marketoption="OnDemand"),
        product("eu-west-1", "31.4", marketoption="CapacityBlock"),
        product("eu-west-2", "3.14", unit="Quantity"),
        json.dumps({"product": {"attributes": {"regionCode": "eu-west-3"}}, "terms": {}}),
    ]
    session: Session = PriceList(tmp_path, items)  # type: ignore[assignment]
    prices, asked = on_demand_prices(session, "p5.48xlarge")
    assert prices == {"us-east-1": Decimal(10), "us-west-1": Decimal("2.25")}
    assert [str(price) for price in prices.values()] == ["10", "2.25"]
    assert (datetime.now(UTC).date() - asked).days <= TODAY_OR_JUST_BEFORE


def test_what_spot_cost_begins_with_the_price_of_the_beginning(account: Account) -> None:
    until = datetime.now(UTC)
    since = until - timedelta(days=3)
    prices = spot_prices(account.session(), A_MACHINE, since, until)
    assert len(prices) > 3
    assert prices[0][0] <= since < prices[1][0]
    assert prices == sorted(prices)
    assert prices[-1][0] <= until
    assert all(price > 0 and at.tzinfo for at, price in prices)


def test_what_spot_cost_is_that_of_the_machines_zone(account: Account) -> None:
    account.double.set_spot_price("p2.8xlarge", "us-west-2a", "0.4321")
    account.double.set_spot_price("p2.8xlarge", "us-west-2b", "0.8888")
    now = datetime.now(UTC) + timedelta(seconds=1)
    other = replace(A_MACHINE, zone="us-west-2a", region=WEST, type="p2.8xlarge")
    prices = spot_prices(account.session(), other, now - timedelta(seconds=1), now)
    assert prices[-1][1] == Decimal("0.4321")
    assert Decimal("0.8888") not in {price for _, price in prices}


def test_what_cannot_be_told_is_empty(account: Account) -> None:
    until = datetime.now(UTC)
    since = until - timedelta(hours=1)
    assert spot_prices(account.session(), replace(A_MACHINE, market=Market.ON_DEMAND), since, until) == []
    assert spot_prices(account.session(), replace(A_MACHINE, zone=""), since, until) == []
    assert account.calls() == {}
    account.double.fault("DescribeSpotPriceHistory", "UnauthorizedOperation")
    assert spot_prices(account.session(), A_MACHINE, since, until) == []


def test_a_broken_line_is_no_answer_about_spot(account: Account) -> None:
    account.double.fault("DescribeSpotPriceHistory", "InternalError", times=None)
    until = datetime.now(UTC)
    with pytest.raises(ProviderError, match="InternalError"):
        spot_prices(account.session(), A_MACHINE, until - timedelta(hours=1), until)


# --- answers that are kept ---


def test_an_old_answer_is_asked_again(session: Session) -> None:
    asked: list[int] = []
    ask = lambda: asked.append(1) or len(asked)  # noqa: E731
    assert kept(session, "a b/c", timedelta(minutes=5), ask).value == 1
    assert kept(session, "a b/c", timedelta(minutes=5), ask).value == 1
    assert kept(session, "a b/c", timedelta(0), ask).value == 2
    assert kept(session, "other", timedelta(minutes=5), ask).value == 3


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"value": 1}', b'{"value": 1, "asked_at": 5}', b"\xff"])
def test_a_broken_file_is_asked_again(session: Session, text: bytes) -> None:
    kept(session, "x", timedelta(hours=1), lambda: 1)
    [path] = answers_of(session).iterdir()
    path.write_bytes(text)
    assert kept(session, "x", timedelta(hours=1), lambda: 2).value == 2
    assert kept(session, "x", timedelta(hours=1), lambda: 3).value == 2


def test_an_answer_from_the_future_is_asked_again(session: Session) -> None:
    kept(session, "x", timedelta(hours=1), lambda: 1)
    [path] = answers_of(session).iterdir()
    later = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    path.write_text(json.dumps({"value": 1, "asked_at": later}))
    assert kept(session, "x", timedelta(hours=1), lambda: 2).value == 2


def test_one_account_is_not_told_what_another_was(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(session, "x", timedelta(hours=1), lambda: 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    assert kept(Session(session.settings), "x", timedelta(hours=1), lambda: 2).value == 2


def test_a_home_that_cannot_be_written_only_asks_again(session: Session) -> None:
    session.settings.home.mkdir(parents=True)
    (session.settings.home / "cache").write_text("a file where the folder should be")
    assert kept(session, "x", timedelta(hours=1), lambda: 1).value == 1
    assert kept(session, "x", timedelta(hours=1), lambda: 2).value == 2


def test_old_files_go(session: Session) -> None:
    kept(session, "x", timedelta(hours=1), lambda: 1)
    [path] = answers_of(session).iterdir()
    past = datetime.now(UTC).timestamp() - OLDEST.total_seconds() - 60
    os.utime(path, (past, past))
    kept(session, "y", timedelta(hours=1), lambda: 1)
    assert path not in set(answers_of(session).iterdir())


def test_who_reads_an_answer_while_it_is_replaced_has_the_whole_old_one(session: Session) -> None:
    kept(session, "x", timedelta(0), lambda: 1)
    [path] = answers_of(session).iterdir()
    with path.open() as reader:
        kept(session, "x", timedelta(0), lambda: 2)
        assert json.load(reader)["value"] == 1
    assert json.loads(path.read_text())["value"] == 2


def test_many_writers_leave_one_whole_answer(session: Session) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: kept(session, "x", timedelta(0), lambda: [n] * 1000).value, range(64)))
    [path] = answers_of(session).iterdir()
    assert len(set(json.loads(path.read_text())["value"])) == 1


def test_side_by_side_keeps_the_order_and_passes_errors_on() -> None:
    assert side_by_side(lambda n: n * n, range(40)) == [n * n for n in range(40)]

    def fail(n: int) -> int:
        if n == 3:
            raise ProviderError("three")
        return n

    with pytest.raises(ProviderError, match="three"):
        side_by_side(fail, range(5))


# --- images ---


@pytest.mark.parametrize("name", [stack.name for stack in list_stacks()])
def test_every_stack_has_an_image_asked_for_once(account: Account, name: str) -> None:
    stack = load_stack(name)
    found = find_image(account.session(), stack, WEST)
    assert found == image_id(WEST, dict(stack.images)["aws"])
    assert find_image(account.session(), stack, WEST) == found
    assert account.calls() == {"GetParameter": 1}


def test_an_image_without_a_parameter_is_found_by_its_name(account: Account) -> None:
    row = next(row for row in read_csv("images.csv") if row["key"] == "ubuntu-22.04")
    ec2 = account.session().client("ec2", EAST)
    [first] = ec2.describe_images(Filters=[{"Name": "name", "Values": [row["ami_name_pattern"]]}])["Images"]
    account.double.fault("GetParameter", "ParameterNotFound", times=None)
    stack = Stack("s", images=(("aws", "ubuntu-22.04"),))
    assert find_image(account.session(), stack, EAST) == first["ImageId"]


def test_the_newest_image_of_a_name_counts(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    days = {"ami-old": "2025-01-09", "ami-new": "2026-11-03", "ami-mid": "2026-09-30"}
    images = [{"ImageId": name, "CreationDate": f"{day}T00:00:00.000Z"} for name, day in days.items()]

    class Ec2:
        def describe_images(self, **asked: object) -> dict[str, object]:
            assert asked["Owners"] == ["898082745236"]
            return {"Images": images}

    monkeypatch.setattr(session, "client", lambda service, region: Ec2())
    stack = Stack("s", images=(("aws", "dlami-base-single-cuda-ubuntu-22.04"),))
    assert find_image(session, stack, EAST) == "ami-new"


def test_an_image_that_nobody_publishes_there(account: Account) -> None:
    stack = Stack("old", images=(("aws", "dlami-ubuntu-16.04 (historic)"),))
    with pytest.raises(ImageNotFound, match="image dlami-ubuntu") as caught:
        find_image(account.session(), stack, EAST)
    assert "old" in caught.value.hint


def test_a_stack_without_an_image_for_aws(account: Account) -> None:
    with pytest.raises(ImageNotFound, match="names no image"):
        find_image(account.session(), Stack("mine", images=(("azure", "x"),)), EAST)
    with pytest.raises(ImageNotFound, match=r"ubuntu-22\.40") as caught:
        find_image(account.session(), Stack("mine", images=(("aws", "ubuntu-22.40"),)), EAST)
    assert "ubuntu-22.04" in caught.value.hint
    assert account.calls() == {}


def test_an_image_needs_the_right_to_ask(account: Account) -> None:
    account.double.fault("GetParameter", "AccessDeniedException")
    with pytest.raises(Credentials, match="GetParameter"):
        find_image(account.session(), load_stack("none"), EAST)


def test_who_logs_in() -> None:
    assert login_user("ubuntu-22.04") == "ubuntu"
    assert login_user("of nobody") == "ubuntu"
