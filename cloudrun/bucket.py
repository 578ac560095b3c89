"""Places for objects outside this computer, by their address: s3://bucket/prefix, az://container/prefix."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cloudrun.errors import NotFound, Refused

if TYPE_CHECKING:
    from cloudrun.config import Settings
    from cloudrun.providers.base import Bucket

KINDS = {
    "s3": ("cloudrun.providers.aws.bucket", "S3Bucket", "aws"),
    "az": ("cloudrun.providers.azure.blob", "BlobBucket", "azure"),
}
# Lower-case letters, digits, hyphens, and dots at S3 (S3 User Guide, "Bucket naming rules"; "Naming and
# referencing containers" of Azure Storage). The service knows the finer rules.
_ADDRESS = re.compile(r"(s3|az)://([a-z0-9$][a-z0-9.-]{1,61}[a-z0-9])(?:/([^\0\n]*))?")


@dataclass(frozen=True, slots=True)
class Place:
    """An address, taken apart. `kind` is s3 or az; prefix has no slash at either end."""

    kind: str
    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        return f"{self.kind}://{self.bucket}/{self.prefix}".rstrip("/")


def parse_place(address: str) -> Place:
    """Raises Refused for what is no address of a bucket."""
    found = _ADDRESS.fullmatch(address)
    prefix = (found[3] or "").strip("/") if found else ""
    if not found or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise Refused(
            f"{address!r} is no place in a bucket", hint="write s3://bucket/prefix or az://container/prefix"
        )
    return Place(found[1], found[2], prefix)


def cloud_of(address: str) -> str:
    """The provider whose service holds it. Raises Refused for what is no address of a bucket."""
    return KINDS[parse_place(address).kind][2]


def read_object(bucket: Bucket, key: str) -> bytes | None:
    """A small object's content (blocking); None where there is none of that name. Raises as base.Bucket."""
    with tempfile.TemporaryDirectory(prefix="cloudrun-") as folder:
        to = Path(folder) / "object"
        try:
            bucket.get(key, to)
        except NotFound as error:
            if "no such object" not in error.message:  # but no such bucket
                raise
            return None
        return to.read_bytes()


def open_bucket(address: str, settings: Settings) -> Bucket:
    """The bucket at an address. Asks nobody yet. Raises Refused for a bad address or where the SDK for it is
    not installed, Credentials where the account is not known."""
    place = parse_place(address)
    module, name, extra = KINDS[place.kind]
    try:
        made: Bucket = getattr(import_module(module), name)(place.bucket, place.prefix, settings)
    except ImportError as error:
        raise Refused(
            f"{place.kind}:// cannot be used: {error}", hint=f"pip install 'cloudrun[{extra}]'"
        ) from error
    return made
