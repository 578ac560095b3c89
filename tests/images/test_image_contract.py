"""What every cloud keeps to that keeps a machine's disk as an image: see SnapshotImages."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from image_cases import HASH, ImageCase
from waiting import until

from cloudrun.images import IMAGE_FACT, ImageState, OwnImage
from cloudrun.providers.base import SnapshotImages

# Of either kind of the rehearsal's machines.
SHOW_KEY = "cat /etc/ssh/ssh_host_ed25519_key.pub ~/../host_key.pub 2>/dev/null || true"


def test_the_provider_says_that_it_can(case: ImageCase) -> None:
    assert isinstance(case.cloud.provider(), SnapshotImages)


def test_a_machine_boots_with_what_was_on_the_disk(case: ImageCase) -> None:
    first = case.launch("first")
    case.run(first, "echo installed >~/installed && sync")
    key = case.run(first, SHOW_KEY)
    asked = case.create(first, "small-1")
    assert (asked.state, asked.name, asked.stack_hash) == (ImageState.PENDING, "small-1", HASH)
    image = case.ready(asked)
    assert image.state is ImageState.AVAILABLE
    case.cloud.provider().terminate(first)
    second = case.launch("second", image=image.id)
    assert dict(second.detail)[IMAGE_FACT] == image.id
    assert case.run(second, "cat ~/installed") == "installed"
    assert key
    assert case.run(second, SHOW_KEY) != key


def test_it_is_listed_with_what_it_is(case: ImageCase) -> None:
    made = make(case, "small-1")
    [listed] = case.provider().list_images()
    assert listed == made
    assert (listed.provider, listed.region, listed.name) == (case.name, case.offer.region, "small-1")
    assert (listed.stack, listed.stack_hash) == ("small", HASH)
    assert listed.size_gb >= 30
    assert listed.price_per_month_usd is not None
    assert Decimal("0.05") <= listed.price_per_month_usd <= 1  # for 3 GB
    assert listed.created_at is not None


def test_asked_twice_it_is_made_once(case: ImageCase) -> None:
    machine = case.launch("first")
    asked = case.create(machine, "small-1")
    again = case.create(machine, "small-1")
    assert again.id == asked.id
    case.ready(asked)
    assert [each.id for each in case.provider().list_images()] == [asked.id]


def test_launches_find_the_newest_that_fits(case: ImageCase) -> None:
    provider = case.provider()
    assert provider.own_image(HASH, case.offer) == ""
    make(case, "small-1")
    newer = make(case, "small-2")
    make(case, "small-3", stack_hash="cd" * 32)
    assert provider.own_image(HASH, case.offer) == newer.id
    assert provider.own_image("ef" * 32, case.offer) == ""
    assert provider.own_image(HASH, replace(case.offer, region=case.elsewhere, zone="")) == ""


def test_deleted_nothing_of_it_is_left(case: ImageCase) -> None:
    before = case.stored()
    image = make(case, "small-1")
    provider = case.provider()
    assert provider.own_image(HASH, case.offer) == image.id
    provider.delete_image(image)
    provider.delete_image(image)
    until(case.stored, lambda left: left == before)
    assert provider.list_images() == []
    assert provider.own_image(HASH, case.offer) == ""
    assert provider.describe_image(image).state is ImageState.FAILED


def test_one_that_is_not_ready_is_deleted_too(case: ImageCase) -> None:
    before = case.stored()
    machine = case.launch("first")
    asked = case.create(machine, "small-1")
    provider = case.provider()
    provider.delete_image(asked)
    case.cloud.provider().terminate(machine)
    until(lambda: (provider.list_images(), case.stored()), lambda left: left == ([], before))


def make(case: ImageCase, name: str, *, stack_hash: str = HASH) -> OwnImage:
    """One that is available, of a machine that has ended."""
    machine = case.launch(f"for-{name}")
    image = case.ready(case.create(machine, name, stack_hash=stack_hash))
    assert image.state is ImageState.AVAILABLE, image.why
    case.cloud.provider().terminate(machine)
    return image
