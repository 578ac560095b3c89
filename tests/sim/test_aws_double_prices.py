"""What the double's services say: spot prices, price list, quotas, types, zones, images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from double_help import IMAGE_PARAMETER, REGION, TYPE, ZONE, Account, account, named, refused
from hypothesis import given, settings
from hypothesis import strategies as some

from cloudrun.catalog import load_offers
from cloudrun.models import Market
from cloudrun.sim.aws.prices import SpotPrices
from cloudrun.sim.aws.seeds import zones_offering

LINUX = "Linux/UNIX"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def aws() -> Iterator[Account]:
    with account() as each:
        yield each


def history(aws: Account, **told: Any) -> list[dict[str, Any]]:
    told.setdefault("InstanceTypes", [TYPE])
    pages = aws.ec2.get_paginator("describe_spot_price_history").paginate(**told)
    return [row for page in pages for row in page["SpotPriceHistory"]]


def test_every_zone_has_its_price_of_now(aws: Account) -> None:
    rows = history(aws, StartTime=datetime.now(UTC), ProductDescriptions=[LINUX])
    assert sorted(row["AvailabilityZone"] for row in rows) == list(zones_offering(REGION, TYPE))
    assert len({row["SpotPrice"] for row in rows}) > 1
    assert {row["ProductDescription"] for row in rows} == {LINUX}


def test_prices_move_and_the_newest_stands_first(aws: Account) -> None:
    since = datetime.now(UTC) - timedelta(days=3)
    rows = history(aws, StartTime=since, AvailabilityZone=ZONE)
    times = [row["Timestamp"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert len(rows) > 8
    assert len({row["SpotPrice"] for row in rows}) > 3
    assert times[-1] <= since < times[-2]


def test_all_of_ninety_days_comes_in_pages(aws: Account) -> None:
    first = aws.ec2.describe_spot_price_history(InstanceTypes=[TYPE], MaxResults=100)
    assert (len(first["SpotPriceHistory"]), bool(first["NextToken"])) == (100, True)
    rows = history(aws)
    assert len(rows) > 1000
    assert len({(row["AvailabilityZone"], row["Timestamp"]) for row in rows}) == len(rows)
    assert min(row["Timestamp"] for row in rows) > datetime.now(UTC) - timedelta(days=91)


def test_the_history_can_be_narrowed(aws: Account) -> None:
    now = datetime.now(UTC)
    by_filter = history(aws, StartTime=now, Filters=[named("availability-zone", "us-east-1b")])
    assert [row["AvailabilityZone"] for row in by_filter] == ["us-east-1b"]
    assert history(aws, StartTime=now, ProductDescriptions=["Windows"]) == []
    assert {row["InstanceType"] for row in history(aws, StartTime=now, InstanceTypes=[])} > {
        TYPE,
        "g5.xlarge",
    }
    with refused("InvalidParameterValue", "colour"):
        history(aws, Filters=[named("colour", "red")])


def test_a_price_that_was_set_stands_until_the_next(aws: Account) -> None:
    other = ["p2.16xlarge"]
    before = history(aws, StartTime=datetime.now(UTC), AvailabilityZone=ZONE, InstanceTypes=other)
    aws.double.set_spot_price("p2.16xlarge", ZONE, "7.5")
    rows = history(aws, StartTime=datetime.now(UTC), AvailabilityZone=ZONE, InstanceTypes=other)
    assert [row["SpotPrice"] for row in rows] == ["7.5"]
    assert history(aws, AvailabilityZone=ZONE, InstanceTypes=other)[1] == before[0]
    elsewhere = history(aws, StartTime=datetime.now(UTC), InstanceTypes=other)
    assert [row["SpotPrice"] for row in elsewhere].count("7.5") == 1
    aws.double.set_spot_price("p2.16xlarge", ZONE, "6")
    rows = history(aws, AvailabilityZone=ZONE, InstanceTypes=other)
    assert [row["SpotPrice"] for row in rows[:2]] == ["6", "7.5"]


@settings(max_examples=60, deadline=None)
@given(
    seed=some.integers(0, 5),
    region=some.sampled_from(["us-east-1", "eu-west-1", "ap-northeast-1"]),
    type=some.sampled_from([TYPE, "g5.xlarge", "g4dn.12xlarge"]),
    hours=some.integers(-24 * 60, 24 * 60),
)
def test_prices_are_the_same_for_all_who_ask_and_below_on_demand(
    seed: int, region: str, type: str, hours: int
) -> None:
    at = NOW + timedelta(hours=hours)
    prices = SpotPrices(seed)
    [on_demand] = load_offers(provider="aws", type=type, market=Market.ON_DEMAND, regions=(region,))
    [spot] = load_offers(provider="aws", type=type, market=Market.SPOT, regions=(region,))
    assert spot.price_per_hour_usd is not None
    assert on_demand.price_per_hour_usd is not None
    for zone in zones_offering(region, type):
        price = prices.price(region, zone, type, at)
        assert price is not None
        assert spot.price_per_hour_usd - Decimal("0.0001") <= price <= on_demand.price_per_hour_usd
        assert price == SpotPrices(seed).price(region, zone, type, at)
        around = prices.changes(region, zone, type, since=at - timedelta(days=2), until=at)
        assert around[0].price_usd == price
        assert all(change.at <= at for change in around)


def test_a_price_that_was_set_moves_no_more() -> None:
    prices = SpotPrices()
    prices.set_price(ZONE, TYPE, Decimal("0.5"), NOW)
    later = NOW + timedelta(days=30)
    assert prices.price(REGION, ZONE, TYPE, later) == Decimal("0.5")
    assert prices.price(REGION, ZONE, TYPE, NOW - timedelta(days=1)) != Decimal("0.5")
    around = prices.changes(REGION, ZONE, TYPE, since=NOW - timedelta(days=2), until=later)
    assert max(change.at for change in around) == NOW
    assert len(around) > 5


def test_what_the_catalogue_has_no_price_for_has_none_here() -> None:
    assert SpotPrices().price(REGION, ZONE, "m7i.large", NOW) is None
    assert SpotPrices().price(REGION, "us-east-1f", TYPE, NOW) is None


def products(aws: Account, **filters: str) -> list[dict[str, Any]]:
    wanted = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in filters.items()]
    pages = (
        aws.client("pricing").get_paginator("get_products").paginate(ServiceCode="AmazonEC2", Filters=wanted)
    )
    return [json.loads(row) for page in pages for row in page["PriceList"]]


def test_the_price_list_has_the_catalogues_on_demand_price(aws: Account) -> None:
    [row] = products(aws, instanceType=TYPE, regionCode=REGION, operatingSystem="Linux", tenancy="Shared")
    assert row["product"]["attributes"]["location"] == "US East (N. Virginia)"
    assert row["product"]["attributes"]["vcpu"] == "4"
    [term] = row["terms"]["OnDemand"].values()
    [rate] = term["priceDimensions"].values()
    assert (rate["unit"], Decimal(rate["pricePerUnit"]["USD"])) == ("Hrs", Decimal("0.9"))


def test_the_price_list_is_filtered_and_comes_in_pages(aws: Account) -> None:
    assert len(products(aws, instanceType=TYPE, location="EU (Ireland)")) == 1
    assert products(aws, instanceType=TYPE, operatingSystem="Windows") == []
    everywhere = products(aws, operatingSystem="Linux")
    assert len(everywhere) > 500
    assert len({row["product"]["sku"] for row in everywhere}) == len(everywhere)


def test_other_services_and_filters_of_the_price_list_are_refused(aws: Account) -> None:
    pricing = aws.client("pricing")
    with refused("NotFoundException"):
        pricing.get_products(ServiceCode="AmazonS3")
    with refused("InvalidParameterException"):
        pricing.get_products(
            ServiceCode="AmazonEC2", Filters=[{"Type": "CONTAINS", "Field": "vcpu", "Value": "4"}]
        )


def test_quotas_are_told_by_region(aws: Account) -> None:
    aws.double.set_quota("eu-west-1", "L-3819A6DF", 12)
    here, there = aws.client("service-quotas"), aws.client("service-quotas", "eu-west-1")
    told = there.get_service_quota(ServiceCode="ec2", QuotaCode="L-3819A6DF")["Quota"]
    assert (told["QuotaName"], told["Value"]) == ("All G and VT Spot Instance Requests", 12)
    assert here.get_service_quota(ServiceCode="ec2", QuotaCode="L-3819A6DF")["Quota"]["Value"] == 256
    listed = {
        each["QuotaCode"]: each["Value"] for each in there.list_service_quotas(ServiceCode="ec2")["Quotas"]
    }
    assert listed["L-3819A6DF"] == 12
    assert listed["L-C4BD4855"] == 0
    with refused("NoSuchResourceException"):
        here.get_service_quota(ServiceCode="ec2", QuotaCode="L-00000000")


def test_asking_for_more_quota_stays_pending(aws: Account) -> None:
    answer = aws.client("service-quotas").request_service_quota_increase(
        ServiceCode="ec2", QuotaCode="L-417A185B", DesiredValue=512
    )
    assert answer["RequestedQuota"]["Status"] == "PENDING"
    told = aws.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-417A185B")
    assert told["Quota"]["Value"] == 256


def test_retired_types_are_described_and_offered(aws: Account) -> None:
    [found] = aws.ec2.describe_instance_types(InstanceTypes=["p2.8xlarge"])["InstanceTypes"]
    assert found["GpuInfo"]["Gpus"][0]["Name"] == "K80"
    assert found["GpuInfo"]["TotalGpuMemoryInMiB"] == 8 * 12 * 1024
    assert found["VCpuInfo"]["DefaultVCpus"] == 32
    filters = [named("instance-type", "p2.8xlarge")]
    offered = aws.ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=filters)
    assert len(offered["InstanceTypeOfferings"]) == 5
    by_region = aws.ec2.describe_instance_type_offerings(LocationType="region", Filters=filters)
    assert [each["Location"] for each in by_region["InstanceTypeOfferings"]] == [REGION]
    wide = [named("instance-type", "p2.*"), named("location", ZONE)]
    offered = aws.ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=wide)
    types = {each["InstanceType"] for each in offered["InstanceTypeOfferings"]}
    assert types == {"p2.xlarge", "p2.8xlarge", "p2.16xlarge"}
    with refused("InvalidInstanceType"):
        aws.ec2.describe_instance_types(InstanceTypes=["g2.2xlarge"])


@pytest.mark.parametrize("region", [REGION, "ap-northeast-1"])
def test_parameters_name_images_that_exist(aws: Account, region: str) -> None:
    ssm, ec2 = aws.client("ssm", region), aws.client("ec2", region)
    deep = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
    for name, owner in ((IMAGE_PARAMETER, "099720109477"), (deep, "898082745236")):
        ami = ssm.get_parameter(Name=name)["Parameter"]["Value"]
        [image] = ec2.describe_images(ImageIds=[ami])["Images"]
        assert (image["OwnerId"], image["Architecture"], image["RootDeviceType"]) == (owner, "x86_64", "ebs")
        assert image["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] in (8, 45)
        assert ec2.describe_images(Owners=[owner], Filters=[named("name", image["Name"])])["Images"] == [
            image
        ]


def test_images_differ_by_region(aws: Account) -> None:
    ids = {
        aws.client("ssm", region).get_parameter(Name=IMAGE_PARAMETER)["Parameter"]["Value"]
        for region in (REGION, "us-west-2")
    }
    assert len(ids) == 2
