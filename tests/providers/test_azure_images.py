"""Sizes as Azure lists them for the subscription, and the image that each boots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudrun.catalog import list_types
from cloudrun.catalog.loader import read_csv
from cloudrun.compat import why_not
from cloudrun.config import Settings
from cloudrun.errors import ImageNotFound, NotOffered, ProviderError
from cloudrun.models import Stack
from cloudrun.providers.azure.images import boot_image, find_image, image_key, image_reference, login_user
from cloudrun.providers.azure.session import Session
from cloudrun.providers.azure.skus import (
    find_sku,
    generations,
    parse_skus,
    region_skus,
    require_offered,
    takes_premium,
)
from cloudrun.sim.azure import AzureDouble
from cloudrun.stacks import list_stacks, load_stack

RECORDING = Path(__file__).parents[1] / "sim" / "azure_recordings" / "resource-skus-list-trimmed.json"
READ = "Microsoft.Compute/skus/read"
EAST = "eastus"
NC6, T4, H100 = "Standard_NC6", "Standard_NC4as_T4_v3", "Standard_NC40ads_H100_v5"
JAMMY = "Canonical:0001-com-ubuntu-server-jammy"


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """No subscription, and so nobody to ask."""
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    return Session(Settings(home=tmp_path / "home", sim=tmp_path))


def recorded() -> list[dict[str, Any]]:
    [exchange] = json.loads(RECORDING.read_text())["exchanges"]
    rows: list[dict[str, Any]] = exchange["response"]["body"]["value"]
    return rows


def a_stack(image: str) -> Stack:
    return Stack("mine", images=(("azure", image),))


# --- sizes ---


def test_the_sizes_that_azure_gave_are_read() -> None:
    skus = {sku.name: sku for sku in parse_skus(recorded(), EAST)}
    assert skus[NC6].family == "standardNCFamily"
    assert skus[NC6].generations == ("V1",)
    assert (skus[NC6].premium, skus[NC6].spot, skus[NC6].refused) == (False, True, "")
    assert skus[NC6].zones == ()  # zones 2 and 3 are there, and not for this subscription
    assert (skus["Standard_NC6s_v3"].premium, skus["Standard_NC6s_v3"].generations) == (True, ("V1", "V2"))
    assert not skus["Standard_NC6_Promo"].spot
    assert "Standard_D2s_v3" not in skus  # not of the catalogue


def test_only_the_rows_of_the_region_count() -> None:
    assert {sku.name for sku in parse_skus(recorded(), "westus")} == set()
    assert NC6 in {sku.name for sku in parse_skus(recorded(), "westus2")}


def test_a_restriction_of_the_location_refuses_and_one_of_zones_does_not() -> None:
    [row] = [row for row in recorded() if row["name"] == NC6 and row["locations"] == [EAST]]
    [free] = parse_skus([row | {"restrictions": []}], EAST)
    assert (free.zones, free.refused) == (("2", "3"), "")
    told = {"type": "Location", "values": [EAST], "reasonCode": "QuotaId", "restrictionInfo": {}}
    [refused] = parse_skus([row | {"restrictions": [told]}], EAST)
    assert refused.refused == "QuotaId"


def test_a_region_is_asked_once_for_all_its_sizes(double: AzureDouble, session: Session) -> None:
    assert find_sku(session, T4, EAST) is not None
    assert region_skus(session, EAST, [NC6, T4])[NC6].family == "standardNCFamily"
    assert takes_premium(session, T4, EAST)
    assert not takes_premium(session, NC6, EAST)
    assert sum(call.operation == READ for call in double.calls()) == 1


def test_a_size_that_the_subscription_cannot_have_is_refused_before_anything_is_made(
    double: AzureDouble, session: Session
) -> None:
    require_offered(session, T4, EAST)
    double.restrict(T4, "westus2")
    with pytest.raises(NotOffered, match="NotAvailableForSubscription"):
        require_offered(session, T4, "westus2")


def test_a_retired_size_is_refused_with_its_end_and_its_successors(session: Session) -> None:
    with pytest.raises(NotOffered, match="does not offer it in eastus") as caught:
        require_offered(session, "Standard_NC6s_v3", EAST)
    assert "was retired on 2025-09-30" in caught.value.hint
    assert "today's nearest: Standard_" in caught.value.hint


def test_a_retired_size_that_the_subscription_is_offered_may_be_launched(session: Session) -> None:
    require_offered(session, NC6, EAST)


def test_what_cannot_be_asked_is_left_to_the_launch(
    double: AzureDouble, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.fault(READ, "AuthorizationFailed", status=403, times=None)
    with pytest.raises(ProviderError, match="sizes offered in westus3"):
        find_sku(session, "Standard_NV6ads_A10_v5", "westus3")
    require_offered(session, "Standard_NC6s_v3", "westus3")
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID")
    require_offered(session, "Standard_NC6s_v3", EAST)


@pytest.mark.parametrize(
    ("type", "premium"),
    [
        (NC6, False),
        (T4, True),
        ("Standard_NC6s_v3", True),
        ("Standard_ND40rs_v2", True),
        ("Standard_NV6", False),
        ("Standard_NV12s_v3", True),
        ("Standard_DS2_v2", True),
        ("Standard_D2_v2", False),
    ],
)
def test_the_name_says_which_disks_fit_where_azure_cannot(nobody: Session, type: str, premium: bool) -> None:
    assert takes_premium(nobody, type, EAST) is premium


def test_what_azure_gave_agrees_with_the_rules_of_names(nobody: Session) -> None:
    """On every size of the recording; what the generation is used for is whether it boots the second."""
    for sku in parse_skus(recorded(), EAST):
        assert sku.premium is takes_premium(nobody, sku.name, EAST), sku.name
        assert ("V2" in sku.generations) is ("V2" in generations(nobody, sku.name, EAST)), sku.name


# --- images ---


def test_every_stack_with_an_image_for_azure_has_one_for_each_size_that_it_drives(nobody: Session) -> None:
    stacks = [load_stack(stack.name) for stack in list_stacks()]
    named = [stack for stack in stacks if dict(stack.images).get("azure")]
    assert named
    for stack in named:
        driven = [
            known
            for known in list_types("azure")
            if why_not(stack, known.gpu_capability, known.gpu_count) is None
        ]
        assert driven, stack.name
        for known in driven:
            assert boot_image(nobody, stack, known.type, EAST).count(":") == 3


@pytest.mark.parametrize("key", ["ubuntu-22.04", "ubuntu-22.04-gen2"])
def test_a_k80_size_boots_the_first_generation_and_others_the_second(session: Session, key: str) -> None:
    assert boot_image(session, a_stack(key), NC6, EAST) == f"{JAMMY}:22_04-lts:latest"
    assert boot_image(session, a_stack(key), T4, EAST) == f"{JAMMY}:22_04-lts-gen2:latest"
    assert boot_image(session, a_stack(key), H100, EAST) == f"{JAMMY}:22_04-lts-gen2:latest"


def test_without_an_account_the_family_says_which_generation(nobody: Session) -> None:
    stack = a_stack("ubuntu-22.04-gen2")
    assert boot_image(nobody, stack, NC6, EAST) == f"{JAMMY}:22_04-lts:latest"
    assert boot_image(nobody, stack, T4, EAST) == f"{JAMMY}:22_04-lts-gen2:latest"
    assert find_image(nobody, stack, EAST) == f"{JAMMY}:22_04-lts-gen2:latest"


@pytest.mark.parametrize("key", ["ubuntu-24.04-gen2", "ubuntu-hpc-22.04"])
def test_an_image_of_the_second_generation_alone_does_not_boot_a_k80_size(nobody: Session, key: str) -> None:
    assert boot_image(nobody, a_stack(key), T4, EAST).endswith(":latest")
    with pytest.raises(ImageNotFound, match=f"Standard_NC6 boots images of generation V1, and {key}"):
        boot_image(nobody, a_stack(key), NC6, EAST)


def test_stacks_are_for_amd64(nobody: Session) -> None:
    assert "arm64" not in boot_image(nobody, a_stack("ubuntu-24.04-gen2"), T4, EAST)


@pytest.mark.parametrize("stack", [Stack("mine"), a_stack("ubuntu-22.10")])
def test_a_stack_without_an_image_for_azure(stack: Stack) -> None:
    with pytest.raises(ImageNotFound, match="stack mine") as caught:
        image_key(stack)
    assert caught.value.hint


def test_an_image_as_a_machine_names_it() -> None:
    assert image_reference(f"{JAMMY}:22_04-lts:latest") == {
        "publisher": "Canonical",
        "offer": "0001-com-ubuntu-server-jammy",
        "sku": "22_04-lts",
        "version": "latest",
    }


def test_every_image_of_the_catalogue_can_be_named(nobody: Session) -> None:
    keys = {row["key"] for row in read_csv("images.csv") if row["provider"] == "azure"}
    assert len(keys) > 10
    for key in keys:
        assert image_reference(find_image(nobody, a_stack(key), EAST))["version"]
        assert login_user(key) == "azureuser"
