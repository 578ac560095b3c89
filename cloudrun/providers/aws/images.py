"""The bootable disk for a stack: catalog/images.csv says how each is found, AWS which one is the newest."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

from botocore.exceptions import ClientError

from cloudrun.catalog.loader import read_csv
from cloudrun.errors import ImageNotFound
from cloudrun.models import Stack
from cloudrun.providers.answers import kept
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.session import Session
from cloudrun.words import nearest

AGE = timedelta(days=1)
PROVIDER = "aws"
LOGIN_USER = "ubuntu"  # of every image in the list that names one
_ARCHITECTURE = {"amd64": "x86_64", "arm64": "arm64"}  # ours -> EC2's


def image_key(stack: Stack) -> str:
    """The stack's key of catalog/images.csv. Raises ImageNotFound where it has none, or an unknown one."""
    key = dict(stack.images).get(PROVIDER, "")
    if not key:
        raise ImageNotFound(
            f"stack {stack.name} names no image for AWS", hint='add aws = "ubuntu-22.04" below its [images]'
        )
    if key not in _rows():
        raise ImageNotFound(f"stack {stack.name}: there is no image {key!r}", hint=nearest(key, _rows()))
    return key


def find_image(session: Session, stack: Stack, region: str) -> str:
    """The id of the newest image of the stack there: what the publisher's SSM parameter names, else the
    newest of the publisher's images of that name. Asked once a day. Raises ImageNotFound, Credentials."""
    key = image_key(stack)

    def ask() -> str:
        with mapped(region=region, what=f"image {key}"):
            found = _by_parameter(session, region, _rows()[key]) or _newest(session, region, _rows()[key])
        if not found:  # raised, and so not kept: it may be published in an hour
            raise ImageNotFound(
                f"nobody publishes image {key} in {region} (any more)",
                hint=f"name another region, or give stack {stack.name} another image",
            )
        return found

    return str(kept(session, f"image-{region}-{key}", AGE, ask).value)


def login_user(image_key: str) -> str:
    """The user that the image lets in by key."""
    row = _rows().get(image_key)
    return (row["login_user"] if row else "") or LOGIN_USER


def _by_parameter(session: Session, region: str, row: dict[str, str]) -> str:
    if not row["ssm_parameter"]:
        return ""
    try:
        answer = session.client("ssm", region).get_parameter(Name=row["ssm_parameter"])
    except ClientError as error:
        if error.response["Error"]["Code"] == "ParameterNotFound":
            return ""
        raise
    return str(answer["Parameter"]["Value"])


def _newest(session: Session, region: str, row: dict[str, str]) -> str:
    if not row["ami_name_pattern"]:
        return ""
    wanted = {
        "name": row["ami_name_pattern"],
        "state": "available",
        "architecture": _ARCHITECTURE[row["arch"]],
    }
    answer = session.client("ec2", region).describe_images(
        Owners=[row["owner_or_publisher"]],
        Filters=[{"Name": name, "Values": [value]} for name, value in wanted.items()],
    )
    by_age = sorted(answer["Images"], key=lambda image: str(image["CreationDate"]))
    return str(by_age[-1]["ImageId"]) if by_age else ""


@cache
def _rows() -> dict[str, dict[str, str]]:
    """AWS's bootable images by key; a row without an architecture is a remark."""
    return {row["key"]: row for row in read_csv("images.csv") if row["provider"] == PROVIDER and row["arch"]}
