"""A cloud that keeps machines' disks as images: what the contract's tests need of each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import aws_help
import azure_help
from rented_cloud import RentedCloud
from waiting import until

from cloudrun.images import ImageState, OwnImage
from cloudrun.models import Machine, Offer
from cloudrun.providers.base import SnapshotImages
from cloudrun.providers.tags import image_tags, owner_of
from cloudrun.remote.connect import connect

HASH = "ab" * 32


@dataclass
class ImageCase:
    """One cloud. `stored` names all that it keeps for images: they themselves, and snapshots."""

    name: str
    cloud: RentedCloud
    offer: Offer
    elsewhere: str  # another region
    stored: Callable[[], list[str]]

    def provider(self) -> SnapshotImages:
        """As a new process has it."""
        return cast(SnapshotImages, self.cloud.provider())

    def launch(self, name: str, *, image: str = "") -> Machine:
        return self.cloud.launch_running(name, offer=self.offer, image=image)

    def run(self, machine: Machine, command: str) -> str:
        assert machine.address is not None
        with closing(connect(machine.address, self.cloud.settings, machine=machine.name)) as shell:
            return shell.run(command, timeout_s=60).text

    def create(self, machine: Machine, name: str, *, stack_hash: str = HASH, stored_gb: int = 3) -> OwnImage:
        owner = owner_of(self.cloud.settings)
        tags = image_tags("small", stack_hash, name, owner=owner, stored_gb=stored_gb)
        return self.provider().create_image(machine, name, tags)

    def ready(self, image: OwnImage) -> OwnImage:
        provider = self.provider()
        return until(
            lambda: provider.describe_image(image),
            lambda seen: seen.state is not ImageState.PENDING,
            within_s=60,
        )


def aws_case(cloud: aws_help.Cloud) -> ImageCase:
    def stored() -> list[str]:
        ec2 = cloud.ec2()
        images = [each["ImageId"] for each in ec2.describe_images(Owners=["self"])["Images"]]
        snapshots = ec2.describe_snapshots(Filters=[{"Name": "tag:cloudrun", "Values": ["1"]}])["Snapshots"]
        return images + [each["SnapshotId"] for each in snapshots]

    return ImageCase("aws", cloud, aws_help.SPOT, "us-west-2", stored)


def azure_case(cloud: azure_help.Cloud) -> ImageCase:
    def stored() -> list[str]:
        return [str(each["id"]).lower() for each in cloud.session().compute.images.list()]

    return ImageCase("azure", cloud, azure_help.SPOT, "westus2", stored)
