"""The bootable disk for a stack: catalog/images.csv has its URN, the size says of which generation.

A size that boots both generations gets the second; Azure's first GPU sizes boot the first alone. Which build
"latest" is, Azure itself decides at the launch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from cloudrun.catalog.loader import read_csv
from cloudrun.errors import ImageNotFound
from cloudrun.models import Stack
from cloudrun.providers.azure.session import Session
from cloudrun.providers.azure.skus import generations
from cloudrun.words import nearest

PROVIDER = "azure"
ARCHITECTURE = "amd64"  # the stacks'
LOGIN_USER = "azureuser"  # ours to choose on Azure; the images that name one name this
SECOND = "-gen2"  # ending of the keys that are the second generation of another
_URN = re.compile(r"([\w.-]+:[\w.-]+:[\w.-]+:[\w.-]+)( \(gen1\))?")


@dataclass(frozen=True, slots=True)
class Image:
    """What Azure calls a marketplace image: publisher:offer:sku:version."""

    urn: str
    generation: str  # V1 or V2


def image_key(stack: Stack) -> str:
    """The stack's key of catalog/images.csv. Raises ImageNotFound where it has none, or an unknown one."""
    key = dict(stack.images).get(PROVIDER, "")
    if not key:
        raise ImageNotFound(
            f"stack {stack.name} names no image for Azure",
            hint='add azure = "ubuntu-22.04-gen2" below its [images]',
        )
    if key not in _rows():
        raise ImageNotFound(f"stack {stack.name}: there is no image {key!r}", hint=nearest(key, _rows()))
    return key


def find_image(session: Session, stack: Stack, region: str) -> str:  # noqa: ARG001  # the same for all
    """The URN of the stack's image, of the newest generation that there is; boot_image has the size's own.
    Asks nobody. Raises ImageNotFound."""
    return _images(image_key(stack))[-1].urn


def boot_image(session: Session, stack: Stack, type: str, region: str) -> str:
    """The URN that the size boots, of the newest generation that it can. Raises ImageNotFound where the
    stack's image is of another one."""
    key = image_key(stack)
    boots = generations(session, type, region)
    fitting = [image for image in _images(key) if image.generation in boots]
    if not fitting:
        raise ImageNotFound(
            f"{type} boots images of generation {' and '.join(boots)}, and {key} is none",
            hint=f"name another stack, or mend [images] of {stack.name}",
        )
    return fitting[-1].urn


def is_own(image: str) -> bool:
    """Whether it is the id of an image of one's own, and not the URN of one that somebody publishes."""
    return image.startswith("/")


def image_reference(image: str) -> dict[str, str]:
    """The image as a machine's storage profile has it."""
    if is_own(image):
        return {"id": image}
    return dict(zip(("publisher", "offer", "sku", "version"), image.split(":"), strict=True))


def login_user(image_key: str) -> str:
    """The user that is made for our key on a machine with that image."""
    row = _rows().get(image_key)
    return row["login_user"].split(" ")[0] if row and row["login_user"] else LOGIN_USER


def _images(key: str) -> list[Image]:
    """Of both keys, that with the ending and that without, the older generation first."""
    base = key.removesuffix(SECOND)
    found = [image for name in (base, base + SECOND) if name in _rows() for image in _of_row(_rows()[name])]
    return sorted(found, key=lambda image: image.generation)


def _of_row(row: Mapping[str, str]) -> list[Image]:
    """Canonical's are of the first generation where nothing else is said, the data science ones of the
    second."""
    second = row["key"].endswith(SECOND) or row["owner_or_publisher"] != "Canonical"
    return [
        Image(urn, "V1" if first or not second else "V2") for urn, first in _URN.findall(row["urn_or_id"])
    ]


@cache
def _rows() -> dict[str, dict[str, str]]:
    """Azure's bootable images by key."""
    return {
        row["key"]: row
        for row in read_csv("images.csv")
        if row["provider"] == PROVIDER and row["arch"] == ARCHITECTURE
    }
