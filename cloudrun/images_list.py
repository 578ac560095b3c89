"""Which images of one's own there are, what each is for, and which of them nothing needs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from cloudrun import images_charged
from cloudrun.context import Context
from cloudrun.errors import CloudrunError, Credentials, ProviderError
from cloudrun.events import Note
from cloudrun.images import IMAGE_FACT, ImageState, OwnImage
from cloudrun.images_own import remember
from cloudrun.models import Machine
from cloudrun.providers.base import SnapshotImages

OLDEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Listed:
    """One image and what it is for. `idle` says why no launch would begin with it; "" for one that would be
    taken, or is being made."""

    image: OwnImage
    machines: tuple[str, ...]  # live ones that were launched from it, by name
    idle: str

    @property
    def unused(self) -> bool:
        """Nothing begins with it any more, and no machine that is there did."""
        return bool(self.idle) and not self.machines


def list_images(ctx: Context, providers: Sequence[str]) -> list[Listed]:
    """All of them, oldest first (blocking; the providers side by side)."""
    with ThreadPoolExecutor(max(1, len(providers))) as pool:
        found = [each for there in pool.map(lambda name: _of(ctx, name), providers) for each in there]
    return sorted(found, key=lambda listed: listed.image.created_at or OLDEST)


def _of(ctx: Context, name: str) -> list[Listed]:
    try:
        provider = ctx.provider(name)
        if not isinstance(provider, SnapshotImages):
            return []
        images = provider.list_images()
        remember(ctx.settings, images, providers=[name])
        images_charged.settle(ctx, name, images)
        machines = provider.list_machines() if images else []
    except Credentials:
        return []  # an account that is not there has no images
    except ProviderError as error:
        ctx.on_event(Note(f"{name} was not asked: {error.message}"))
        return []
    live = [machine for machine in machines if not machine.state.gone]
    return [Listed(image, _users(image, live), _idle(image, images)) for image in images]


def _users(image: OwnImage, machines: Sequence[Machine]) -> tuple[str, ...]:
    """An id may be written in another case: Azure's are."""
    from_it = (
        machine.name
        for machine in machines
        if dict(machine.detail).get(IMAGE_FACT, "").casefold() == image.id.casefold()
    )
    return tuple(sorted(from_it))


def _idle(image: OwnImage, all_: Sequence[OwnImage]) -> str:
    if image.state is ImageState.FAILED:
        return "it failed"
    if image.state is ImageState.PENDING:
        return ""
    for other in all_:
        same = _for_what(other) == _for_what(image)
        ready = other.state is ImageState.AVAILABLE
        if same and ready and (other.created_at or OLDEST) > (image.created_at or OLDEST):
            return f"{other.name} is newer"
    return "" if _is_current(image) else "the stack is another by now"


def _for_what(image: OwnImage) -> tuple[str, str, str]:
    """Images that are equal in this serve the same launches."""
    return image.region, image.stack_hash, image.kind


def _is_current(image: OwnImage) -> bool:
    """Whether the stack of that name is still what stands on it. One from a file of somebody's own, which is
    known by its name alone, may be."""
    from cloudrun.stacks import list_stacks, stack_hash

    try:
        of_name = [stack for stack in list_stacks() if stack.name == image.stack]
    except CloudrunError:
        return True
    return not of_name or stack_hash(of_name[0]) == image.stack_hash
