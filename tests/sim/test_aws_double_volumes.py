"""Volumes that change their size on the double."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from delays import delay
from double_help import Account, account, named, refused, until


@pytest.fixture
def aws() -> Iterator[Account]:
    with account() as each:
        yield each


def change(aws: Account, volume: str) -> Any:
    [found] = aws.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
    return found


def test_a_volume_grows_by_way_of_modifying_and_optimizing(aws: Account) -> None:
    """Three of them, each of which stays at another stage."""
    delay(aws.double, modifying_s=3600)
    volume = aws.root_volume(aws.running())
    answer = aws.ec2.modify_volume(VolumeId=volume, Size=50)["VolumeModification"]
    assert (answer["ModificationState"], answer["OriginalSize"], answer["TargetSize"]) == ("modifying", 8, 50)
    assert change(aws, volume)["ModificationState"] == "modifying"
    delay(aws.double, modifying_s=0.02, optimizing_s=3600)
    until_grown(aws, "optimizing")
    delay(aws.double, optimizing_s=0.02)
    grown = until_grown(aws, "completed")
    assert grown["Progress"] == 100
    assert grown["EndTime"] >= grown["StartTime"]  # whole seconds


def until_grown(aws: Account, state: str) -> Any:
    """The change of a new volume once it has that state."""
    volume = aws.root_volume(aws.running())
    aws.ec2.modify_volume(VolumeId=volume, Size=50)
    until(lambda: change(aws, volume)["ModificationState"] == state, f"it to be {state}")
    return change(aws, volume)


def test_what_was_asked_for_is_there(aws: Account) -> None:
    volume = aws.root_volume(aws.running())
    aws.ec2.modify_volume(VolumeId=volume, Size=50)
    [found] = aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    assert found["Size"] == 50


def test_no_volume_shrinks(aws: Account) -> None:
    volume = aws.root_volume(aws.running())
    with refused("InvalidParameterValue", "smaller"):
        aws.ec2.modify_volume(VolumeId=volume, Size=7)
    assert aws.ec2.describe_volumes_modifications()["VolumesModifications"] == []


def test_the_next_change_has_to_wait(aws: Account) -> None:
    volume = aws.root_volume(aws.running())
    aws.ec2.modify_volume(VolumeId=volume, Size=50)
    with refused("IncorrectModificationState"):
        aws.ec2.modify_volume(VolumeId=volume, Size=60)
    until(lambda: change(aws, volume)["ModificationState"] == "completed", "the first change")
    with refused("VolumeModificationRateExceeded", "6 hours"):
        aws.ec2.modify_volume(VolumeId=volume, Size=60)


def test_changes_are_found_by_filters(aws: Account) -> None:
    volume = aws.root_volume(aws.running())
    aws.ec2.modify_volume(VolumeId=volume, Size=50)
    until(lambda: change(aws, volume)["ModificationState"] == "completed", "the change")
    describe = aws.ec2.describe_volumes_modifications
    [found] = describe(Filters=[named("modification-state", "completed")])["VolumesModifications"]
    assert found["VolumeId"] == volume
    assert describe(Filters=[named("modification-state", "failed")])["VolumesModifications"] == []
    with refused("InvalidParameterValue", "colour"):
        describe(Filters=[named("colour", "red")])


def test_volumes_that_do_not_exist_are_refused(aws: Account) -> None:
    with refused("InvalidVolume.NotFound"):
        aws.ec2.modify_volume(VolumeId="vol-0123456789abcdef0", Size=50)
    with refused("InvalidVolumeModification.NotFound"):
        aws.ec2.describe_volumes_modifications(VolumeIds=["vol-0123456789abcdef0"])
