"""Quotas of an Azure subscription, read before anything is launched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudrun import catalog
from cloudrun.catalog import InstanceType
from cloudrun.catalog.loader import read_csv
from cloudrun.errors import Credentials
from cloudrun.models import Market
from cloudrun.providers.azure.quotas import Usage, parse_usages, region_usages, squeezed, too_small
from cloudrun.providers.azure.session import Session
from cloudrun.sim.azure import AzureDouble

RECORDING = Path(__file__).parents[1] / "sim" / "azure_recordings" / "usages-list.json"
EAST = "eastus"
READ = "Microsoft.Compute/locations/usages/read"


def size(name: str) -> InstanceType:
    found = catalog.find_type("azure", f"Standard_{name}")
    assert found is not None
    return found


NC6, T4 = size("NC6"), size("NC4as_T4_v3")


def room(**limits: tuple[int, int]) -> dict[str, Usage]:
    """Usages by squeezed name: limit and use."""
    return {name: Usage(name, limit, used) for name, (limit, used) in limits.items()}


def asked(double: AzureDouble) -> int:
    return sum(call.operation == READ for call in double.calls())


# --- what the numbers say ---


def test_the_usages_that_azure_gave_are_read() -> None:
    [exchange] = json.loads(RECORDING.read_text())["exchanges"]
    usages = parse_usages(exchange["response"]["body"]["value"])
    assert usages["cores"] == Usage("Total Regional vCPUs", 100, 13)
    assert usages["standardncfamily"] == Usage("Standard NC Family vCPUs", 48, 0)


@pytest.mark.parametrize(
    ("usages", "fits"),
    [
        (room(cores=(6, 0), standardncfamily=(6, 0)), True),
        (room(cores=(5, 0), standardncfamily=(6, 0)), False),
        (room(cores=(6, 0), standardncfamily=(0, 0)), False),
        (room(cores=(10, 4), standardncfamily=(6, 0)), True),
        (room(cores=(10, 5), standardncfamily=(6, 0)), False),
        (room(cores=(10, 0), standardncfamily=(11, 6)), False),
        (room(lowprioritycores=(0, 0)), True),
        ({}, True),
    ],
)
def test_on_demand_needs_room_in_its_family_and_in_the_region(usages: dict[str, Usage], fits: bool) -> None:
    assert bool(too_small(usages, EAST, NC6, Market.ON_DEMAND)) is not fits


@pytest.mark.parametrize(
    ("usages", "fits"),
    [
        (room(lowprioritycores=(6, 0)), True),
        (room(lowprioritycores=(6, 1)), False),
        (room(lowprioritycores=(6, 0), cores=(0, 0), standardncfamily=(0, 0)), True),
    ],
)
def test_spot_of_all_families_shares_one_pool(usages: dict[str, Usage], fits: bool) -> None:
    assert bool(too_small(usages, EAST, NC6, Market.SPOT)) is not fits


def test_what_is_too_small_is_said_with_its_figures() -> None:
    usages = {"standardncfamily": Usage("Standard NC Family vCPUs", 12, 8)}
    said = too_small(usages, EAST, NC6, Market.ON_DEMAND)
    assert "quota in eastus is 12 vCPUs, 8 in use, and Standard_NC6 needs 6" in said
    assert "Standard NC Family vCPUs" in said


def test_a_family_counts_however_it_is_spelled() -> None:
    usages = parse_usages(
        [{"name": {"value": "Standard NCASv3_T4 Family"}, "limit": 0, "currentValue": 0, "unit": "Count"}]
    )
    assert too_small(usages, EAST, T4, Market.ON_DEMAND, family="standardNCASv3_T4Family")
    assert too_small(usages, EAST, T4, Market.ON_DEMAND)
    assert not too_small(usages, EAST, NC6, Market.ON_DEMAND)


def test_every_family_of_the_quota_table_is_one_of_a_type() -> None:
    families = {squeezed(known.family) for known in catalog.list_types("azure")}
    rows = [
        row for row in read_csv("quotas.csv") if row["kind"] == "on-demand" and row["provider"] == "azure"
    ]
    named = {squeezed(row["code"]) for row in rows}
    assert named
    assert named - families == {"cores"}


# --- asking ---


def test_a_lowered_quota_refuses_and_is_asked_for_again_only_after_a_while(
    double: AzureDouble, session: Session
) -> None:
    double.set_quota(EAST, "standardNCFamily", 4)
    usages = region_usages(session, EAST, [NC6], [Market.ON_DEMAND])
    assert "is 4 vCPUs, 0 in use" in too_small(usages, EAST, NC6, Market.ON_DEMAND)
    assert not too_small(usages, EAST, NC6, Market.SPOT)
    assert not too_small(usages, EAST, T4, Market.ON_DEMAND)
    region_usages(session, EAST, [NC6], [Market.ON_DEMAND])
    assert asked(double) == 1


def test_a_raised_quota_is_not_refused_for_long(double: AzureDouble, session: Session) -> None:
    double.set_quota("westus2", "lowPriorityCores", 0)
    assert too_small(region_usages(session, "westus2", [NC6], [Market.SPOT]), "westus2", NC6, Market.SPOT)
    double.set_quota("westus2", "lowPriorityCores", 6)
    [path] = (session.settings.home / "cache" / "answers").glob("*usages-westus2*")
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"asked_at": "2026-01-01T00:00:00+00:00"}))
    assert not too_small(region_usages(session, "westus2", [NC6], [Market.SPOT]), "westus2", NC6, Market.SPOT)


def test_one_region_takes_one_call_for_all_types(double: AzureDouble, session: Session) -> None:
    for _ in range(3):
        region_usages(session, EAST, [T4, size("NC8as_T4_v3")], list(Market)[:2])
    assert asked(double) == 1


def test_an_account_that_may_not_ask(double: AzureDouble, session: Session) -> None:
    double.fault(READ, "AuthorizationFailed", status=403)
    with pytest.raises(Credentials, match="quotas in eastus"):
        region_usages(session, EAST, [NC6], [Market.ON_DEMAND])
