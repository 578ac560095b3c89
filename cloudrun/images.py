"""An image of one's own: the disk of a machine on which a stack stands already, kept at its provider."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

IMAGE_FACT = "image"  # in Machine.detail: the id of the image that the machine was launched from
SNAPSHOT = "snapshot"  # Charge.what of what is stored for an image


class ImageState(StrEnum):
    """How far a provider is with one."""

    PENDING = "pending"
    AVAILABLE = "available"
    FAILED = "failed"  # it will never boot anything: to be deleted


@dataclass(frozen=True, slots=True)
class OwnImage:
    """One as its provider tells it; what its tags do not say is empty."""

    provider: str
    region: str
    id: str  # as LaunchSpec.image has it
    name: str  # unique among an account's images of a region
    state: ImageState
    stack: str = ""
    stack_hash: str = ""  # stacks.stack_hash, whole
    created_at: datetime | None = None
    owner: str = ""  # as providers.tags.owner_of writes whose bake it was
    size_gb: int = 0  # of the disk that it makes; what is stored and billed may be less
    stored_gb: int = 0  # about, what is stored of it and billed
    price_per_month_usd: Decimal | None = None  # about, for what is stored of it; None = unknown
    kind: str = ""  # where not every type boots every image: Azure's V1 and V2
    why: str = ""  # of a failed one, in the provider's words
    detail: tuple[tuple[str, str], ...] = ()  # the provider's private facts


def charged_as(name: str) -> str:
    """What stands in the place of a machine's name on the ledger's lines of an image; no machine's name has
    a blank."""
    return f"image {name}"
