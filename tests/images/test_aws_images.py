"""Images of one's own at AWS: few calls, a cut bake's leftovers, and names that are somebody else's."""

from __future__ import annotations

import pytest
from aws_help import REGION, SPOT, Cloud
from image_cases import HASH, ImageCase, aws_case
from waiting import until

from cloudrun.errors import ProviderError
from cloudrun.images import ImageState, OwnImage
from cloudrun.providers.aws import AwsProvider


@pytest.fixture
def case(aws: Cloud) -> ImageCase:
    return aws_case(aws)


def failed(case: ImageCase, aws: Cloud) -> OwnImage:
    """An image whose machine ended before its disk was read: what a bake that was cut may leave."""
    machine = case.launch("first")
    with aws.double._running().instances[machine.id].machine_lock:
        asked = case.create(machine, "small-1")
        aws.provider().terminate(machine)
    return case.ready(asked)


def test_one_call_makes_it_with_its_tags_and_a_launch_asks_once(case: ImageCase, aws: Cloud) -> None:
    machine = case.launch("first")
    aws.calls()
    image = case.create(machine, "small-1")
    assert aws.calls() == {"CreateImage": 1}
    case.ready(image)
    snapshots = aws.ec2().describe_snapshots(Filters=[{"Name": "tag:cloudrun-image", "Values": ["small-1"]}])
    assert len(snapshots["Snapshots"]) == 1
    aws.calls()
    for _ in range(3):
        assert case.provider().own_image(HASH, SPOT) == image.id
    assert aws.calls() == {"DescribeImages": 1}
    case.provider().delete_image(image)
    assert aws.calls() == {"DescribeImages": 1, "DeregisterImage": 1, "DeleteSnapshot": 1}


def test_what_a_cut_bake_left_is_found_and_freed(case: ImageCase, aws: Cloud) -> None:
    image = failed(case, aws)
    assert image.state is ImageState.FAILED
    assert case.provider().own_image(HASH, SPOT) == ""
    provider = aws.provider()
    left = {each.kind: each for each in provider.list_leftovers() if each.kind in ("image", "snapshot")}
    assert [left[kind].in_use for kind in ("image", "snapshot")] == [False, False]
    provider.free(left["image"])
    provider.free(left["snapshot"])
    assert case.stored() == []


def test_an_image_that_is_wanted_is_no_leftover(case: ImageCase, aws: Cloud) -> None:
    machine = case.launch("first")
    asked = case.create(machine, "small-1")
    assert unwanted(aws.provider()) == []  # nor while it is being made
    case.ready(asked)
    aws.provider().terminate(machine)
    assert unwanted(aws.provider()) == []


def unwanted(provider: AwsProvider) -> list[str]:
    found = provider.list_leftovers()
    assert {"image", "snapshot"} <= {each.kind for each in found}
    return [each.kind for each in found if each.kind in ("image", "snapshot") and not each.in_use]


def test_a_name_that_somebody_elses_image_has_is_refused(case: ImageCase, aws: Cloud) -> None:
    machine = case.launch("first")
    theirs = aws.ec2().create_image(InstanceId=machine.id, Name="small-1")["ImageId"]
    until(
        lambda: aws.ec2().describe_images(ImageIds=[theirs])["Images"][0]["State"], lambda s: s != "pending"
    )
    with pytest.raises(ProviderError, match="an image of that name is there already"):
        case.create(machine, "small-1")
    assert case.provider().list_images() == []


def test_an_answer_that_got_lost_makes_no_second_image(case: ImageCase, aws: Cloud) -> None:
    machine = case.launch("first")
    aws.double.fault("CreateImage", lose_answer=True)
    image = case.create(machine, "small-1")  # asked again, EC2 knows the name
    assert [each.id for each in case.provider().list_images()] == [image.id]
    assert image.region == REGION
