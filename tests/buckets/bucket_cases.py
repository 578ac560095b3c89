"""What the contract of buckets needs to know of each kind beyond the interface."""

from __future__ import annotations

import uuid
from typing import Any, Protocol

import boto3
import pytest
from exhaustive import exhaustive

from cloudrun.bucket import open_bucket
from cloudrun.config import Settings
from cloudrun.providers.base import Bucket
from cloudrun.sim.aws import AwsDouble
from cloudrun.sim.azure import AzureDouble

CONTAINER = "results"
# What happens above a bucket's interface is the same in both.
one_bucket = pytest.mark.parametrize("case", ["az", *exhaustive("s3")], indirect=True)


class Case(Protocol):
    """One kind of bucket."""

    batch: int  # keys a delete call takes
    address: str
    absent: str  # the address of a bucket that is not there
    bucket: Bucket

    def corrupt(self, key: str) -> None: ...
    def delete_calls(self) -> int: ...
    def fill(self, keys: list[str]) -> None: ...
    def forbid_storing(self) -> None: ...


class S3Case:
    batch = 1000

    def __init__(self, double: AwsDouble, settings: Settings) -> None:
        self.double, self.name = double, f"results-{uuid.uuid4().hex[:8]}"
        self.s3: Any = boto3.client("s3")
        self.s3.create_bucket(Bucket=self.name)
        self.address, self.absent = f"s3://{self.name}/deep/place", "s3://nobody-made-this/place"
        self.bucket = open_bucket(self.address, settings)
        double.forget_calls()

    def corrupt(self, key: str) -> None:
        """Another body, the metadata as they were."""
        told = {"Bucket": self.name, "Key": f"deep/place/{key}"}
        known = self.s3.head_object(**told)
        self.s3.put_object(**told, Body=b"x" * known["ContentLength"], Metadata=known["Metadata"])

    def delete_calls(self) -> int:
        return sum(call.action in ("DeleteObjects", "DeleteObject") for call in self.double.calls())

    def fill(self, keys: list[str]) -> None:
        from moto.s3.models import s3_backends

        backend = s3_backends["123456789012"]["aws"]
        for key in keys:
            backend.put_object(self.name, f"deep/place/{key}", b"1")

    def forbid_storing(self) -> None:
        self.double.fault("PutObject", "AccessDenied", status=403, times=None)


class BlobCase:
    batch = 256

    def __init__(self, double: AzureDouble, settings: Settings) -> None:
        self.double = double
        self.address, self.absent = f"az://{CONTAINER}/deep/place", "az://nobody-made-this/place"
        self.bucket = open_bucket(self.address, settings)

    def corrupt(self, key: str) -> None:
        self.double.storage.change(CONTAINER, f"deep/place/{key}", lambda content: b"x" * len(content))

    def delete_calls(self) -> int:
        return sum(operation.startswith(("Batch", "Delete")) for operation in self.double.storage.calls())

    def fill(self, keys: list[str]) -> None:
        for key in keys:
            self.double.storage.put(CONTAINER, f"deep/place/{key}", b"1")

    def forbid_storing(self) -> None:
        self.double.storage.forbid("Put Block", "Put Block List")
