"""The shipped facts: names of types, prices with their dates, what replaces what is retired."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from cloudrun import catalog
from cloudrun.catalog.loader import FOLDER, read_csv
from cloudrun.errors import NotFound
from cloudrun.models import Market


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("p2.xlarge", ("aws", "p2.xlarge")),
        ("P2.XLarge", ("aws", "p2.xlarge")),
        ("p6-b200.48xlarge", ("aws", "p6-b200.48xlarge")),
        ("NC6", ("azure", "Standard_NC6")),
        ("nc4as_t4_v3", ("azure", "Standard_NC4as_T4_v3")),
        ("Standard NC4as T4 v3", ("azure", "Standard_NC4as_T4_v3")),
        ("standard_nc6", ("azure", "Standard_NC6")),
        (" local ", ("local", "local")),
    ],
)
def test_a_type_is_found_however_it_is_written(text: str, found: tuple[str, str]) -> None:
    assert catalog.resolve_type(text) == [found]


def test_every_type_resolves_to_itself() -> None:
    for known in catalog.list_types():
        assert catalog.resolve_type(known.type) == [(known.provider, known.type)]


@pytest.mark.parametrize(
    ("typo", "meant"), [("p2.xlrge", "p2.xlarge"), ("NC4as_T4v3", "NC4as_T4_v3"), ("locl", "local")]
)
def test_a_typo_names_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(NotFound) as caught:
        catalog.resolve_type(typo)
    assert meant in caught.value.hint
    assert caught.value.exit_code == 2


def test_the_newest_price_of_each_market_counts_with_its_own_date() -> None:
    def east(market: Market) -> tuple[Decimal | None, date | None]:
        (offer,) = catalog.load_offers(type="p2.xlarge", market=market, regions=("us-east-1",))
        return offer.price_per_hour_usd, offer.price_as_of

    assert east(Market.ON_DEMAND) == (Decimal("0.9"), date(2026, 7, 20))
    assert east(Market.SPOT) == (Decimal("0.387"), date(2024, 2, 21))


def test_a_market_without_a_present_price_takes_the_older_one() -> None:
    """The present list has g2 on demand alone; its last spot prices are of 2023."""
    spot = {offer.region: offer for offer in catalog.load_offers(type="g2.2xlarge", market=Market.SPOT)}
    assert spot["ap-northeast-1"].price_per_hour_usd == Decimal("0.2694")
    assert spot["ap-northeast-1"].price_as_of == date(2023, 7, 10)
    on_demand = catalog.load_offers(type="g2.2xlarge", market=Market.ON_DEMAND)
    assert all(offer.price_as_of and offer.price_as_of.year == 2026 for offer in on_demand)


def test_no_price_is_zero_and_an_unknown_one_is_none() -> None:
    offers = catalog.load_offers()
    assert all(offer.price_per_hour_usd is None or offer.price_per_hour_usd > 0 for offer in offers)
    assert any(offer.price_per_hour_usd is None for offer in offers)
    assert len({(o.provider, o.region, o.type, o.market) for o in offers}) == len(offers)


def test_special_regions_only_when_named() -> None:
    assert not [offer for offer in catalog.load_offers() if offer.region.startswith("us-gov")]
    assert catalog.load_offers(type="p2.xlarge", regions=("us-gov-west-1",))


def test_a_share_of_a_gpu_counts_as_one_with_its_share_of_the_memory() -> None:
    eighth = catalog.find_type("aws", "g6f.large")
    sixth = catalog.find_type("azure", "Standard_NV6ads_A10_v5")
    assert eighth is not None
    assert sixth is not None
    assert (eighth.gpu_count, eighth.gpu_memory_gib, eighth.whole_gpus) == (1, 3.0, False)
    assert (sixth.gpu_count, sixth.gpu_memory_gib, sixth.whole_gpus) == (1, 4.0, False)


def test_successors_are_of_today_and_no_less() -> None:
    assert catalog.successors("aws", "p2.xlarge")[0] == "g4dn.xlarge"
    assert catalog.successors("azure", "Standard_NC6")[0] == "Standard_NC4as_T4_v3"
    assert catalog.successors("aws", "g4dn.xlarge") == []
    for old in catalog.list_types():
        for name in catalog.successors(old.provider, old.type):
            new = catalog.find_type(old.provider, name)
            assert new is not None
            assert new.status == "listed"
            assert new.whole_gpus
            assert new.gpu_count >= old.gpu_count
            assert new.gpu_memory_gib >= old.gpu_memory_gib


def test_the_warning_of_a_retired_type_has_its_date_and_successors() -> None:
    warning = catalog.type_warning("azure", "Standard_NC6")
    assert "retired on 2023-09-06" in warning
    assert "Standard_NC4as_T4_v3" in warning
    assert catalog.type_warning("aws", "g4dn.xlarge") == ""
    assert "uncertain" in catalog.type_warning("aws", "g4ad.xlarge")


def test_disk_and_address_are_part_of_an_hour() -> None:
    cost, remark = catalog.running_cost_per_hour_usd("aws", 100)
    assert cost == Decimal("0.005") + Decimal("0.08") * 100 / 730
    assert "us-east-1" in remark
    assert catalog.running_cost_per_hour_usd("aws", 0) == (Decimal("0.005"), "")
    assert catalog.running_cost_per_hour_usd("local", 100) == (Decimal(0), "")


def test_every_table_says_where_it_comes_from_and_parses() -> None:
    readme = (FOLDER / "README.md").read_text()
    tables = sorted(FOLDER.glob("*.csv"))
    assert tables
    for table in tables:
        assert table.read_text(encoding="utf-8").startswith("# "), table.name
        assert table.name in readme
        rows = list(read_csv(table.name))
        assert rows, table.name
        assert all(None not in row and None not in row.values() for row in rows), table.name
    assert catalog.load_billing()
