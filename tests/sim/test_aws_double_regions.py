"""The regions of an account's first day."""

from __future__ import annotations

from double_help import account


def test_the_regions_are_those_that_every_account_has() -> None:
    with account() as aws:
        named = {each["RegionName"]: each["OptInStatus"] for each in aws.ec2.describe_regions()["Regions"]}
    assert len(named) == 17
    assert set(named.values()) == {"opt-in-not-required"}
    assert {"us-east-1", "us-west-2", "eu-west-1"} < set(named)
    assert not {"us-gov-west-1", "cn-north-1", "af-south-1", "ap-east-1"} & set(named)
