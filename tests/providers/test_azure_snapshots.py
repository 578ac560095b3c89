"""Machines' disks kept as images at Azure: step by step, whoever is killed between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from azure_help import CPU, ON_DEMAND, REGION, SPOT, STACK, Cloud, open_cloud
from test_azure_leftovers import make_team
from waiting import until

from cloudrun.errors import ConnectionLost, Credentials, ImageNotFound, NotFound, ProviderError, Refused
from cloudrun.images import IMAGE_FACT, ImageState, OwnImage
from cloudrun.models import LaunchOptions, Machine, MachineState, Offer
from cloudrun.providers.azure import session as sessions
from cloudrun.providers.azure.parts import ASKED, parts_of_id
from cloudrun.providers.base import SnapshotImages
from cloudrun.providers.tags import image_tags

IMAGES = "Microsoft.Compute/images/"
GENERALIZE = "Microsoft.Compute/virtualMachines/generalize/action"
DEALLOCATE = "Microsoft.Compute/virtualMachines/deallocate/action"
NC6 = replace(ON_DEMAND, type="Standard_NC6", gpu="K80")
HASH = "1" * 64


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


def tags(name: str = "baked", stack_hash: str = HASH) -> dict[str, str]:
    return image_tags(STACK.name, stack_hash, name, owner="someone", stored_gb=11)


def begin(cloud: Cloud, machine: Machine, name: str = "baked", stack_hash: str = HASH) -> OwnImage:
    return cloud.provider().create_image(machine, name, tags(name, stack_hash))


def finish(cloud: Cloud, image: OwnImage) -> OwnImage:
    """Looked at by a new process each time, until it is as it will be."""
    return until(
        lambda: cloud.provider().describe_image(image), lambda seen: seen.state is not ImageState.PENDING
    )


def bake(
    cloud: Cloud, name: str = "baked", *, stack_hash: str = HASH, offer: Offer = ON_DEMAND, **more: Any
) -> OwnImage:
    """An image, whose machine is gone."""
    machine = cloud.launch_running(f"m-{name}", offer=offer, **more)
    image = finish(cloud, begin(cloud, machine, name, stack_hash))
    cloud.provider().terminate(machine)
    until(cloud.alive, lambda ids: machine.id not in ids)
    return image


def shown(cloud: Cloud, image: OwnImage) -> dict[str, Any]:
    place = parts_of_id(image.id)
    found: dict[str, Any] = cloud.session().compute.images.get(place.group, place.stem).as_dict()
    return found


# --- making one ---


def test_a_disk_is_kept_with_the_tags_that_it_was_given_and_outlives_its_machine(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=100)
    before = datetime.now(UTC)
    begun = begin(cloud, machine)
    assert isinstance(cloud.provider(), SnapshotImages)
    assert (begun.state, begun.name, begun.region) == (ImageState.PENDING, "baked", REGION)
    made = finish(cloud, begun)
    assert made.id == begun.id
    assert (made.provider, made.name, made.region, made.state) == (
        "azure",
        "baked",
        REGION,
        ImageState.AVAILABLE,
    )
    assert (made.stack, made.stack_hash, made.size_gb) == (STACK.name, HASH, 100)
    assert made.created_at
    assert before <= made.created_at <= datetime.now(UTC)
    assert made.price_per_month_usd == 11 * Decimal("0.05")
    body = shown(cloud, made)
    assert tags().items() <= body["tags"].items()
    assert body["properties"]["hyperVGeneration"] == "V2"
    cloud.provider().terminate(machine)
    until(cloud.everything, lambda found: found == [f"cloudrun-images-{REGION}", "baked"])
    assert cloud.provider().list_images() == [made]


def test_the_machine_is_off_for_it_and_is_nobodys_eviction(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=SPOT)
    finish(cloud, begin(cloud, machine))
    seen = cloud.provider().describe(machine)
    assert seen.state is MachineState.STOPPED
    assert "preempted" not in dict(seen.detail)
    with pytest.raises(ProviderError, match="generalized"):
        cloud.provider().start(seen)


def test_one_call_asks_and_the_same_call_again_finds_the_same_image(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    begun = begin(cloud, machine)
    assert begin(cloud, machine) == begun
    made = finish(cloud, begun)
    cloud.calls()
    assert begin(cloud, machine) == made
    assert cloud.calls() == {f"{IMAGES}read": 1}


def test_one_that_is_under_way_is_in_the_list_and_is_finished_by_whoever_finds_it_there(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND, disk_gb=100)
    begun = begin(cloud, machine)
    [listed] = cloud.provider().list_images()
    assert listed == begun
    assert (listed.stack_hash, listed.size_gb, listed.created_at) == (HASH, 100, None)
    assert finish(cloud, listed).state is ImageState.AVAILABLE


def test_an_answer_that_was_lost_is_found_again(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "RETRIES", 0)
    machine = cloud.launch_running(offer=ON_DEMAND)
    for operation in ("Microsoft.Compute/virtualMachines/write", DEALLOCATE):
        cloud.double.fault(operation, lose_answer=True)
        with pytest.raises(ConnectionLost):
            begin(cloud, machine)
    begun = begin(cloud, machine)
    until(lambda: cloud.provider().describe(machine).state, lambda state: state is MachineState.STOPPED)
    for operation in (GENERALIZE, f"{IMAGES}write"):
        cloud.double.fault(operation, lose_answer=True)

    def again() -> ImageState:
        try:
            return cloud.provider().describe_image(begun).state
        except ConnectionLost:
            return ImageState.PENDING

    until(again, lambda state: state is ImageState.AVAILABLE)


def test_what_azure_refuses_is_told_and_the_next_look_tries_again(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    begun = begin(cloud, machine)
    cloud.double.fault(f"{IMAGES}write", "AuthorizationFailed", status=403)
    with pytest.raises(Credentials, match="make the image baked"):
        finish(cloud, begun)
    assert finish(cloud, begun).state is ImageState.AVAILABLE


def test_one_that_azure_accepts_and_cannot_make_is_failed(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    cloud.double.fault(f"{IMAGES}write", "InternalExecutionError", late=True)
    made = finish(cloud, begin(cloud, machine))
    assert (made.state, made.why) == (ImageState.FAILED, "Azure could not make it")
    assert cloud.provider().own_image(HASH, ON_DEMAND) == ""


def test_a_machine_that_goes_meanwhile_leaves_a_failed_one(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    begun = begin(cloud, machine)
    cloud.provider().terminate(machine)
    made = finish(cloud, begun)
    assert (made.state, made.why) == (ImageState.FAILED, "Azure knows no such image")
    cloud.until_empty()
    with pytest.raises(NotFound):
        begin(cloud, machine)


def test_a_machine_with_trusted_launch_is_refused_and_goes_on(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    place = parts_of_id(machine.id)
    secure = {"properties": {"securityProfile": {"securityType": "TrustedLaunch"}}}
    cloud.session().compute.virtual_machines.begin_update(place.group, place.stem, secure).result()
    with pytest.raises(Refused, match="TrustedLaunch"):
        begin(cloud, machine)
    assert cloud.provider().describe(machine).state is MachineState.RUNNING
    assert cloud.provider().list_images() == []


def test_an_image_of_a_machine_in_a_group_of_the_users_lies_there_too(cloud: Cloud) -> None:
    make_team(cloud)
    machine = cloud.launch_running(offer=CPU, options=LaunchOptions(resource_group="team"))
    made = finish(cloud, begin(cloud, machine))
    assert "/resourcegroups/team/" in made.id.lower()
    cloud.provider().terminate(machine)
    assert cloud.provider().list_images() == [made]


# --- booting from one ---


def test_a_machine_says_from_which_it_was_launched(cloud: Cloud) -> None:
    made = bake(cloud, disk_gb=100)
    machine = cloud.launch_running("t4", offer=ON_DEMAND, image=made.id)
    assert dict(machine.detail)[IMAGE_FACT] == made.id
    assert machine.disk_gb == 100
    storage = cloud.body("virtual_machines", machine)["properties"]["storageProfile"]
    assert storage["imageReference"] == {"id": made.id}
    assert storage["osDisk"]["diskSizeGB"] == 100
    [listed] = cloud.provider().list_machines()
    assert dict(listed.detail)[IMAGE_FACT] == made.id
    bigger = cloud.launch("t4b", offer=ON_DEMAND, image=made.id, disk_gb=150)
    assert bigger.disk_gb == 150


def test_others_do_not(cloud: Cloud) -> None:
    assert IMAGE_FACT not in dict(cloud.launch(offer=ON_DEMAND, image="a:b:c:latest").detail)


def test_one_that_is_gone_is_not_launched_from(cloud: Cloud) -> None:
    made = bake(cloud)
    assert cloud.provider().own_image(HASH, ON_DEMAND) == made.id
    place = parts_of_id(made.id)
    cloud.session().compute.images.begin_delete(place.group, place.stem).result()
    assert cloud.provider().own_image(HASH, ON_DEMAND) == made.id  # what was heard minutes ago
    with pytest.raises(ImageNotFound, match="baked is not there"):
        cloud.launch(offer=ON_DEMAND, image=made.id)
    assert cloud.provider().own_image(HASH, ON_DEMAND) == ""
    until(cloud.everything, lambda found: found == [place.group])


def test_one_that_goes_at_the_last_moment_is_an_image_that_is_not_there(cloud: Cloud) -> None:
    made = bake(cloud)
    words = f"The Image '{made.id}' cannot be found in 'eastus' region."
    cloud.double.fault("Microsoft.Compute/virtualMachines/write", "NotFound", message=words, status=404)
    with pytest.raises(ImageNotFound, match="there is no such image"):
        cloud.launch(offer=ON_DEMAND, image=made.id)


def test_the_newest_with_that_hash_in_the_region_is_taken(cloud: Cloud) -> None:
    provider = cloud.provider()
    assert provider.own_image(HASH, ON_DEMAND) == ""
    first = bake(cloud, "first")
    assert provider.own_image(HASH, ON_DEMAND) == first.id
    second = bake(cloud, "second")
    bake(cloud, "other", stack_hash="2" * 64)
    assert [each.name for each in provider.list_images()] == ["first", "second", "other"]
    assert provider.own_image(HASH, ON_DEMAND) == second.id
    assert provider.own_image(HASH, SPOT) == second.id
    assert provider.own_image(HASH, replace(ON_DEMAND, region="westus2")) == ""
    assert provider.own_image("3" * 64, ON_DEMAND) == ""
    cloud.calls()
    assert cloud.provider().own_image(HASH, ON_DEMAND) == second.id
    assert cloud.calls() == {}


def test_a_size_gets_one_of_a_generation_that_it_boots(cloud: Cloud) -> None:
    old = bake(cloud, "old", offer=NC6)
    assert shown(cloud, old)["properties"]["hyperVGeneration"] == "V1"
    new = bake(cloud, "new")
    assert (old.kind, new.kind) == ("V1", "V2")
    assert cloud.provider().own_image(HASH, NC6) == old.id
    assert cloud.provider().own_image(HASH, ON_DEMAND) == new.id
    cloud.launch_running("k80", offer=NC6, image=old.id)
    cloud.launch_running("t4", offer=ON_DEMAND, image=old.id)


# --- the end of one ---


def test_one_is_deleted_once_and_machines_that_booted_from_it_stay(cloud: Cloud) -> None:
    made = bake(cloud)
    machine = cloud.launch_running("t4", offer=ON_DEMAND, image=made.id)
    assert cloud.provider().own_image(HASH, ON_DEMAND) == made.id
    cloud.provider().delete_image(made)
    assert cloud.provider().list_images() == []
    assert cloud.provider().own_image(HASH, ON_DEMAND) == ""
    cloud.provider().delete_image(made)
    until(lambda: "baked" in cloud.everything(), lambda there: not there)
    cloud.provider().delete_image(made)
    assert cloud.provider().describe_image(made).state is ImageState.FAILED
    assert cloud.provider().describe(machine).state is MachineState.RUNNING


def test_one_that_is_under_way_is_no_more_once_deleted(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    begun = begin(cloud, machine)
    cloud.provider().delete_image(begun)
    assert cloud.provider().list_images() == []
    assert cloud.provider().describe_image(begun).state is ImageState.FAILED
    cloud.provider().delete_image(begun)
    [seen] = cloud.provider().list_machines()
    assert (seen.name, seen.stack) == ("t4", STACK.name)


def test_one_that_launches_begin_with_is_no_leftover_and_a_failed_one_is(cloud: Cloud) -> None:
    made = bake(cloud, disk_gb=100)
    machine = cloud.launch_running("broken", offer=ON_DEMAND)
    cloud.double.fault(f"{IMAGES}write", "InternalExecutionError", late=True)
    failed = finish(cloud, begin(cloud, machine, "failed"))
    cloud.provider().terminate(machine)
    make_old(cloud)
    found = {each.name: each for each in cloud.provider().list_leftovers() if each.kind == "image"}
    assert {name: each.in_use for name, each in found.items()} == {"baked": True, "failed": False}
    assert found["baked"].price_per_month_usd == made.price_per_month_usd == 11 * Decimal("0.05")
    cloud.provider().free(found["failed"])
    until(cloud.provider().list_images, lambda left: [each.id for each in left] == [made.id])
    assert cloud.provider().describe_image(failed).state is ImageState.FAILED


def make_old(cloud: Cloud) -> None:
    """The images were asked for yesterday."""
    images = cloud.session().compute.images
    for each in images.list():
        tags = {**each["tags"], ASKED: (datetime.now(UTC) - timedelta(days=1)).isoformat()}
        images.begin_update(parts_of_id(each["id"]).group, each["name"], {"tags": tags}).result()


def test_a_machine_that_is_still_there_does_not_become_a_deleted_image_again(cloud: Cloud) -> None:
    machine = cloud.launch_running(offer=ON_DEMAND)
    made = finish(cloud, begin(cloud, machine))
    cloud.provider().delete_image(made)
    assert cloud.provider().list_images() == []
    assert finish(cloud, made).state is ImageState.FAILED
    until(lambda: "baked" in cloud.everything(), lambda there: not there)
    assert cloud.provider().describe_image(made).state is ImageState.FAILED


def test_strangers_images_are_not_ours(cloud: Cloud) -> None:
    made = bake(cloud)
    place = parts_of_id(made.id)
    images = cloud.session().compute.images
    images.begin_update(place.group, place.stem, {"tags": {"someone": "else"}}).result()
    assert cloud.provider().list_images() == []


def test_its_tags_tell_another_computer_all_of_it(cloud: Cloud, tmp_path: Path) -> None:
    made = bake(cloud)
    [there] = cloud.provider(home=tmp_path / "other").list_images()
    assert there == made
    assert cloud.provider(home=tmp_path / "other").own_image(HASH, ON_DEMAND) == made.id
