"""images bake and delete: images of one's own, on which a stack stands already."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from cloudrun.cli import render
from cloudrun.cli.clean import to_age
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import (
    confirm,
    dry_run_option,
    json_option,
    market_option,
    open_client,
    region_option,
    yes_option,
)
from cloudrun.cli.plan_view import field, offer_text, price_text
from cloudrun.cli.shapes import bake_shape, listed_image_shape, own_image_shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import UNKNOWN, money, plain_money, plural, short_age
from cloudrun.cli.watch import Watcher
from cloudrun.errors import NotFound, UsageError

if TYPE_CHECKING:
    from cloudrun.client import Client
    from cloudrun.images import OwnImage
    from cloudrun.images_bake import Bake
    from cloudrun.images_list import Listed

OWN = (
    Column("IMAGE", 0),
    Column("STACK", 5, optional=True),
    Column("WHERE", 4, least=10),
    Column("STATE", 3),
    Column("AGE", 6, right=True),
    Column("DISK GB", 7, right=True, optional=True),
    Column("USD/MONTH", 2, right=True),
    Column("USED BY", 1, least=12),
)


@click.command(
    cls=Verb,
    examples=(
        "cloudrun images bake cuda8-theano --on p2.xlarge --spot",
        "cloudrun images bake ./mine.toml --on NC6 --region westeurope --dry-run",
    ),
)
@click.argument("stack")
@click.option("--on", "type", required=True, metavar="TYPE", help="The kind of machine to make it on.")
@market_option
@region_option
@click.option("--name", default="", help="What to call it; without it a name is made from the stack.")
@click.option("--disk-gb", type=click.IntRange(1), default=None, help="Size of its disk (100).")
@click.option("--resource-group", default="", metavar="NAME", help="Azure: make it in one that exists.")
@click.option("--again", is_flag=True, help="Also where one with the same stack is there already.")
@dry_run_option
@yes_option
@json_option
def bake(stack: str, dry_run: bool, yes: bool, as_json: bool, **asked: Any) -> None:
    """Keep a provisioned machine's disk as an image.

    Launches a machine, puts the stack on it, takes all of its own off it again (keys, runs, history, logs),
    keeps its disk, and lets it go. Launches of that stack in that region then begin with the image and skip
    the steps; its tags say what is on it. What is stored is billed until you delete it.
    """
    client = open_client()
    plan = client.plan_bake(stack, **{**asked, "disk_gb": asked["disk_gb"] or 0})
    warnings = [field("warning", each) for each in client.limits(plan.candidates)]
    for line in [*_plan_lines(plan), *warnings]:
        (render.data if dry_run and not as_json else render.say)(line)
    if dry_run:
        if as_json:
            render.as_json(bake_shape(plan))
        render.say("dry run: nothing was spent")
        return
    offer = plan.candidates[0]
    confirm(f"Launch for {money(offer.price_per_hour_usd)} an hour, and keep its disk?", yes=yes)
    image = client.bake(plan, on_event=Watcher())
    if as_json:
        render.as_json(own_image_shape(image))
        return
    render.lines(_image_lines(image))


@click.command(
    cls=Verb,
    examples=(
        "cloudrun images delete cuda8-theano-20261121-163012",
        "cloudrun images delete --unused --older-than 30d",
    ),
)
@click.argument("names", nargs=-1)
@click.option("--older-than", metavar="AGE", callback=to_age, help="Those made longer ago: 12h, 30d, 2w.")
@click.option("--unused", is_flag=True, help="Those that no launch would take and no machine came from.")
@dry_run_option
@yes_option
@json_option
def delete(
    names: Sequence[str],
    older_than: timedelta | None,
    unused: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete images of your own, and what is stored for them.

    With --older-than and --unused those that are both. --unused takes what failed, what has a newer
    one with the same stack, and what holds a stack that has been changed since, where no machine that is
    there was launched from it. Machines need their image no more once they run.
    """
    if bool(names) == bool(older_than or unused):
        raise UsageError("name images, or say --older-than or --unused", hint="cloudrun images delete --help")
    client = open_client()
    found = _chosen(client, names, older_than, unused)
    if found and not as_json:
        show_own(found)
    if found and not dry_run:
        confirm(f"Delete {plural(len(found), 'image')} for good?", yes=yes)
        for listed in found:
            client.delete_image(listed.image)
    if as_json:
        render.as_json([listed_image_shape(listed) for listed in found])
    render.say(_deleted(found, dry_run=dry_run))


def show_own(found: Sequence[Listed]) -> None:
    """A table of them."""
    now = datetime.now(UTC)
    render.table(OWN, [_row(listed, now) for listed in found])


def _plan_lines(plan: Bake) -> list[str]:
    offer = plan.candidates[0]
    price = price_text(offer.price_per_hour_usd, offer.market, offer.price_as_of)
    kept = plan.price_per_gb_month_usd
    return [
        field("image", f"{plan.name}, in {offer.provider} {offer.region} and nowhere else"),
        field("stack", f"{plan.stack.name} {plan.stack_hash[:12]}"),
        field("machine", offer_text(offer)),
        field("price", price),
        field("at most", f"{money(plan.worst_case_usd)}: it ends itself, should this computer not do it"),
        field("then", f"{UNKNOWN if kept is None else money(kept)} a month for each GB that is stored"),
        *([field("warning", offer.warning)] if offer.warning else []),
    ]


def _image_lines(image: OwnImage) -> list[str]:
    return [
        field("image", f"{image.name} ({image.id.rpartition('/')[2]}), {image.state.value}"),
        field("where", f"{image.provider} {image.region}"),
        field("stack", f"{image.stack} {image.stack_hash[:12]}: launches of it there begin with this image"),
        field("disk", f"{image.size_gb} GB; {money(image.price_per_month_usd)} a month for what is stored"),
    ]


def _row(listed: Listed, now: datetime) -> tuple[str, ...]:
    image = listed.image
    monthly = image.price_per_month_usd
    return (
        image.name,
        image.stack,
        f"{image.provider} {image.region}",
        image.state.value,
        short_age((now - image.created_at).total_seconds()) if image.created_at else "",
        str(image.size_gb or ""),
        UNKNOWN if monthly is None else plain_money(monthly),
        ", ".join(listed.machines) or (f"nothing: {listed.idle}" if listed.idle else "launches"),
    )


def _chosen(client: Client, names: Sequence[str], older_than: timedelta | None, unused: bool) -> list[Listed]:
    """What is meant. Raises NotFound for a name that no image has."""
    there = client.own_images(on_event=Watcher())
    if names:
        for name in names:
            if not any(name in (each.image.name, each.image.id) for each in there):
                raise NotFound(f"no image {name!r} of your own", hint="cloudrun images list")
        return [each for each in there if {each.image.name, each.image.id} & {*names}]
    now = datetime.now(UTC)
    return [
        each
        for each in there
        if (not unused or each.unused)
        and (not older_than or (each.image.created_at and now - each.image.created_at > older_than))
    ]


def _deleted(found: Sequence[Listed], *, dry_run: bool) -> str:
    """`2 images deleted, about 0.85 USD a month less`"""
    if not found:
        return "there is no such image"
    less = sum((each.image.price_per_month_usd or Decimal(0) for each in found), Decimal(0))
    done = "would go" if dry_run else "deleted"
    return f"{plural(len(found), 'image')} {done}, about {money(less)} a month less"
