"""Baking: a machine is launched, provisioned and cleaned, its disk is kept as an image, and it is let go.

Nothing waits for this process to live: the machine has a guard with a deadline as every other, an image that
was asked for becomes what it becomes, and the next bake lets go what a killed one left. An image is wanted
from the moment it was asked for, because its disk was clean by then.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from decimal import Decimal

from cloudrun import assets, catalog, images_charged, machines
from cloudrun.attempts import hourly_usd
from cloudrun.context import Context, now
from cloudrun.errors import ProviderError, Refused, StepFailed
from cloudrun.events import Note
from cloudrun.guard import make_guard
from cloudrun.images import ImageState, OwnImage
from cloudrun.images_charged import bake_lock, bake_machine
from cloudrun.images_own import is_bare, remember
from cloudrun.locks import holding
from cloudrun.models import Guard, LaunchOptions, Machine, Market, Offer, OnPreempt, Stack
from cloudrun.providers import tags as t
from cloudrun.providers.base import SnapshotImages
from cloudrun.spending import Spending

MAX_HOURS = 4.0  # CUDA and a framework take half an hour, a disk of 100 GB about as long to be kept
IDLE_MINUTES = 60.0  # nobody works on it while its disk is kept
CLEAN_TIMEOUT_S = 300.0
IMAGE_TIMEOUT_S = 7200.0
SAY_EVERY_S = 60.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,46}[A-Za-z0-9]")  # that both clouds take


@dataclass(frozen=True, slots=True)
class Bake:
    """What would be baked: free to plan, metered to do."""

    name: str  # of the image
    stack: Stack
    stack_hash: str
    candidates: tuple[Offer, ...]  # of one region, where the image will be
    disk_gb: int = 0
    resource_group: str = ""  # Azure: one that exists, for the machine and its image
    worst_case_usd: Decimal | None = None
    price_per_gb_month_usd: Decimal | None = None  # of what is in use of the disk, for as long as it is kept

    @property
    def machine(self) -> str:
        """The name of the machine on which it is made."""
        return bake_machine(self.name)


def plan_bake(
    ctx: Context,
    stack: Stack,
    candidates: Sequence[Offer],
    *,
    name: str,
    disk_gb: int,
    resource_group: str,
    again: bool,
) -> Bake:
    """Asks the provider which images there are. Raises Refused for what cannot be baked, where one with the
    same stack is there already (without `again`), and for a name that is taken."""
    from cloudrun.stacks import stack_hash

    offer = candidates[0]
    provider = keeper(ctx, offer.provider)
    if is_bare(stack):
        raise Refused(f"stack {stack.name} installs nothing", hint="launch with it as it is")
    chosen = name or f"{re.sub(r'[^A-Za-z0-9._-]', '-', stack.name)[:32]}-{now():%Y%m%d-%H%M%S}"
    if not NAME.fullmatch(chosen):
        raise Refused(f"{chosen!r} cannot name an image", hint="use 3 to 48 letters, digits, . _ -")
    made_of = stack_hash(stack)
    listed = provider.list_images()
    images_charged.settle(ctx, offer.provider, listed)
    there = [each for each in listed if each.region == offer.region]
    if any(each.name == chosen for each in there):
        raise Refused(f"an image {chosen} is there already, in {offer.region}", hint="give another --name")
    taken = provider.own_image(made_of, offer)
    kinds = {"", *(each.kind for each in there if each.id == taken)}  # that the type boots
    live = [each for each in there if each.state is not ImageState.FAILED]
    same = [each for each in live if each.stack_hash == made_of and each.kind in kinds]
    if same and not again:
        raise Refused(
            f"{same[-1].name} in {offer.region} has this very stack on it, and launches take it",
            hint="--again bakes another, from the published image of today",
        )
    ours = tuple(each for each in candidates if each.region == offer.region)
    worst = Spending(MAX_HOURS, None, disk_gb).worst_case_usd(ours)
    rule = catalog.snapshot_rule(offer.provider)
    per_gb = rule.price_usd if rule else None
    return Bake(chosen, stack, made_of, ours, disk_gb, resource_group, worst, per_gb)


def bake(ctx: Context, plan: Bake) -> OwnImage:
    """The image, available (blocking, for many minutes). However that ends, the machine is let go; after a
    failure or an interruption no image is left."""
    let_go_cut_ones(ctx)
    with holding(bake_lock(ctx.settings, plan.machine)):
        try:
            [machine] = machines.launch(
                ctx,
                name=plan.machine,
                stack=plan.stack,
                candidates=plan.candidates,
                guard_of=_guard_of(plan),
                disk_gb=plan.disk_gb,
                options=_options(plan),
            )
            image = _keep_disk(ctx, plan, machine)
            remember(ctx.settings, [image])
            return image
        finally:
            _let_go(ctx, plan.machine)


def keeper(ctx: Context, name: str) -> SnapshotImages:
    """That provider, which keeps disks as images. Raises Refused for another."""
    provider = ctx.provider(name)
    if not isinstance(provider, SnapshotImages):
        raise Refused(f"{name} keeps no images of machines", hint="--on a type of AWS or Azure")
    return provider


def let_go_cut_ones(ctx: Context) -> None:
    """The machines of bakes whose process was killed. They would end by themselves within some hours."""
    folder = ctx.settings.home / "baking"
    for lock in sorted(folder.iterdir()) if folder.is_dir() else ():
        with holding(lock) as free:
            if free:
                _let_go(ctx, lock.name)


def _guard_of(plan: Bake) -> machines.GuardMaker:
    def guard_of(offer: Offer) -> Guard:
        price = hourly_usd(offer, plan.disk_gb)
        return make_guard(now=now(), max_hours=MAX_HOURS, price_per_hour_usd=price, idle_minutes=IDLE_MINUTES)

    return guard_of


def _options(plan: Bake) -> LaunchOptions:
    """One that is taken is lost: nobody waits for its return."""
    spot = plan.candidates[0].market is Market.SPOT
    return LaunchOptions(
        base_image=True,
        on_preempt=OnPreempt.TERMINATE if spot else None,
        resource_group=plan.resource_group,
    )


def _keep_disk(ctx: Context, plan: Bake, machine: Machine) -> OwnImage:
    provider = keeper(ctx, machine.provider)
    stored_gb = _clean(ctx, machine)
    owner = t.owner_of(ctx.settings)
    tags = t.image_tags(plan.stack.name, plan.stack_hash, plan.name, owner=owner, stored_gb=stored_gb)
    ctx.on_event(Note(f"{machine.name} is clean, {stored_gb} GB in use; its disk becomes {plan.name}"))
    image = _ask_for(ctx, provider, machine, plan.name, tags)
    try:
        return _await(ctx, provider, image)
    except BaseException:
        with suppress(ProviderError):
            provider.delete_image(image)
            images_charged.close_line(ctx, image)
        raise


def _ask_for(
    ctx: Context, provider: SnapshotImages, machine: Machine, name: str, tags: Mapping[str, str]
) -> OwnImage:
    """What is stored for it is a line of the ledger before it may be there."""
    stored_gb = int(tags[t.STORED_GB])
    line = images_charged.open_line(ctx, machine.provider, machine.region, name, stored_gb=stored_gb)
    try:
        return provider.create_image(machine, name, tags)
    except BaseException:
        images_charged.void_line(ctx, line)
        raise


def _clean(ctx: Context, machine: Machine) -> int:
    """Take all that is this machine's own off its disk; how much of it is in use then, in GB. Nobody gets in
    any more."""
    script = (assets.provisioning_dir() / "clean_image.sh").read_bytes()
    with closing(ctx.connect(machine)) as shell:
        done = shell.run('sudo -n sh -s -- "$HOME"', input=script, timeout_s=CLEAN_TIMEOUT_S, check=False)
    told = re.search(r"^used-gb (\d+)$", done.text, re.MULTILINE)
    if not done or told is None:
        said = done.stderr.decode("utf-8", "replace").strip() or done.text
        raise StepFailed(
            f"{machine.name} could not be cleaned: {said[-500:]}", hint="it is let go; try again"
        )
    return int(told[1])


def _await(ctx: Context, provider: SnapshotImages, image: OwnImage) -> OwnImage:
    began_at = said_at = time.monotonic()
    while image.state is ImageState.PENDING:
        time.sleep(ctx.settings.poll_s)
        image = provider.describe_image(image)
        at = time.monotonic()
        if at - began_at > IMAGE_TIMEOUT_S:
            image = replace(image, state=ImageState.FAILED, why="it is still not ready")
        elif at - said_at > SAY_EVERY_S:
            said_at = at
            ctx.on_event(Note(f"{image.name} is being made for {(at - began_at) / 60:.0f} min"))
    if image.state is ImageState.FAILED:
        raise ProviderError(
            f"{image.provider} {image.region}: no image {image.name}: {image.why or 'it failed'}",
            hint="try again: cloudrun images bake",
        )
    return image


def _let_go(ctx: Context, name: str) -> None:
    machine = ctx.store.get_machine(name)
    if machine is not None and not machine.state.gone:
        machines.terminate(ctx, [machine])
    bake_lock(ctx.settings, name).unlink(missing_ok=True)
