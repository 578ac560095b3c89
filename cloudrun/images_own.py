"""Which image of one's own a launch begins with: the newest there on which the very same stack stands.

Where there are such images is also kept at home (cache/own-images.json), as this computer saw it last: of
offers that cost about the same, the one in a region with an image comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from decimal import Decimal

from cloudrun.config import Settings
from cloudrun.context import Context
from cloudrun.errors import ProviderError
from cloudrun.images import ImageState, OwnImage
from cloudrun.keys import save_text
from cloudrun.models import LaunchSpec, Offer, Stack
from cloudrun.providers.base import SnapshotImages

ABOUT_THE_SAME = Decimal("1.03")  # the steps take about as long as this makes dearer in ten hours
FILE = "cache/own-images.json"  # below the home folder; without it the order is that of prices
Place = tuple[str, str, str]  # provider, region, stack's hash


def is_bare(stack: Stack) -> bool:
    """It installs nothing that an image could save."""
    return not (stack.steps or stack.frameworks)


def find(ctx: Context, spec: LaunchSpec) -> str:
    """Its id; "" where there is none, the launch shall have the published one, or nobody can be asked.

    A machine that boots from it is provisioned as any other: the one check of all steps says that they hold.
    """
    provider = ctx.provider(spec.offer.provider)
    if is_bare(spec.stack) or spec.options.base_image or not isinstance(provider, SnapshotImages):
        return ""
    from cloudrun.stacks import stack_hash  # it loads pydantic

    with suppress(ProviderError):
        return provider.own_image(stack_hash(spec.stack), spec.offer)
    return ""


def remember(settings: Settings, images: Iterable[OwnImage], *, providers: Sequence[str] = ()) -> None:
    """Keep where these are. What was kept of the named providers, which were asked, is forgotten."""
    ready = {
        (image.provider, image.region, image.stack_hash)
        for image in images
        if image.state is ImageState.AVAILABLE
    }
    kept = {place for place in _places(settings) if place[0] not in providers}
    path = settings.home / FILE
    with suppress(OSError):  # a full or read-only disk: launches only look less far
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        save_text(path, json.dumps(sorted(kept | ready)))


def prefer(settings: Settings, stack: Stack, candidates: Sequence[Offer]) -> tuple[Offer, ...]:
    """The offers in their order, but of those that cost about as much as the first the ones in regions with
    an image of the stack come before the others. Asks nobody."""
    first = candidates[0].price_per_hour_usd if candidates else None
    places = set() if first is None or is_bare(stack) else _places(settings)
    if not places or first is None:
        return tuple(candidates)
    from cloudrun.stacks import stack_hash

    made_of = stack_hash(stack)

    def is_better(offer: Offer) -> bool:
        price = offer.price_per_hour_usd
        near = price is not None and price <= first * ABOUT_THE_SAME
        return near and (offer.provider, offer.region, made_of) in places

    return tuple(sorted(candidates, key=lambda offer: not is_better(offer)))


def _places(settings: Settings) -> set[Place]:
    try:
        stored = json.loads((settings.home / FILE).read_bytes())
        return {(str(provider), str(region), str(made_of)) for provider, region, made_of in stored}
    except (OSError, ValueError, TypeError):
        return set()
