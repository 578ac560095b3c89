"""What is stored for images of one's own, in the ledger: one open line for each, from before its provider is
asked for it until it is deleted, or is first seen to be gone.

The ledger is brought to what a provider lists whenever it lists them; so whatever a process that was killed
left half-done, or somebody did in the console, is put right by the next look.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cloudrun import ledger
from cloudrun.config import Settings
from cloudrun.context import Context, now
from cloudrun.images import SNAPSHOT, ImageState, OwnImage, charged_as
from cloudrun.locks import holding
from cloudrun.models import Charge
from cloudrun.providers import tags as t
from cloudrun.providers.base import SnapshotImages
from cloudrun.store import Store

Place = tuple[str, str]  # region, and what its lines stand under: unique at a provider


def open_line(ctx: Context, provider: str, region: str, name: str, *, stored_gb: int) -> Charge:
    """The line of an image that is about to be asked for, on the disk when this returns."""
    return ctx.store.add_charge(ledger.open_image(provider, region, name, stored_gb=stored_gb, at=now()))


def close_line(ctx: Context, image: OwnImage) -> None:
    """It was deleted. Idempotent."""
    for line in open_lines(ctx.store, image.provider):
        if _place_of(line) == _place(image):
            _close(ctx, line, now())


def void_line(ctx: Context, line: Charge) -> None:
    """The image never was: its line costs nothing. Idempotent."""
    if line.id is not None:
        ctx.store.void_charge(line.id)


def look_after(ctx: Context, provider: str) -> None:
    """Ask for the images there, and settle; only where the ledger has open lines of some (blocking)."""
    keeper = ctx.provider(provider) if open_lines(ctx.store, provider) else None
    if isinstance(keeper, SnapshotImages):
        settle(ctx, provider, keeper.list_images())


def settle(ctx: Context, provider: str, images: Sequence[OwnImage]) -> None:
    """Bring the ledger to what a provider has just listed, all of it: the line of an image that is gone ends,
    one of ours without a line gets it. Idempotent; what two processes opened at once is one line again."""
    there = {_place(image): image for image in images}
    charged: set[Place] = set()
    for line in open_lines(ctx.store, provider):
        place = _place_of(line)
        if place in charged:
            void_line(ctx, line)
        elif place not in there:
            _end(ctx, line)
        charged.add(place)
    for place, image in there.items():
        if place not in charged and image.state is not ImageState.FAILED:
            _open_again(ctx, image)


def open_lines(store: Store, provider: str) -> list[Charge]:
    """Of the images at that provider."""
    return [line for line in store.list_charges(what=SNAPSHOT, open_only=True) if line.provider == provider]


def bake_lock(settings: Settings, machine: str) -> Path:
    """Held while that machine's disk becomes an image; one that nobody holds is of a bake that was cut."""
    return settings.home / "baking" / machine


def bake_machine(image: str) -> str:
    """The name of the machine on which an image is made."""
    return f"bake-{image}"


def _end(ctx: Context, line: Charge) -> None:
    """Its provider does not list it: it is gone, was never asked for, or is about to be."""
    lock = bake_lock(ctx.settings, bake_machine(line.machine.removeprefix(charged_as(""))))
    if not lock.exists():
        _close(ctx, line, now())
        return
    with holding(lock) as cut:
        if cut:
            void_line(ctx, line)


def _open_again(ctx: Context, image: OwnImage) -> None:
    """Of this home's images alone: others of the account are counted where they were baked."""
    known = ctx.store.list_charges(machine=charged_as(image.name))
    before = [line for line in known if (line.provider, line.region) == (image.provider, image.region)]
    if not before and image.owner != t.owner_of(ctx.settings):
        return
    counted = any(not line.void for line in before)
    at = now() if counted or image.created_at is None else image.created_at
    line = ledger.open_image(image.provider, image.region, image.name, stored_gb=image.stored_gb, at=at)
    ctx.store.add_charge(line)


def _close(ctx: Context, line: Charge, at: datetime) -> None:
    if line.id is not None:
        ctx.store.close_charge(line.id, at)


def _place(image: OwnImage) -> Place:
    return image.region, charged_as(image.name)


def _place_of(line: Charge) -> Place:
    return line.region, line.machine
