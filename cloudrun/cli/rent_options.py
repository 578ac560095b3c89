"""Options of everything that rents: how, where, on which terms. `launch` and `submit` share them."""

from __future__ import annotations

from typing import Any

import click

from cloudrun.cli.options import Command, region_option, to_usd
from cloudrun.models import LaunchOptions, OnPreempt


def rent_options(command: Command) -> Command:
    """Where it shall be, its disk and address, what a spot machine may cost and what becomes of it."""
    options = (
        region_option,
        click.option("--disk-gb", type=click.IntRange(1), default=None, help="Size of its disk (100)."),
        click.option("--disk-type", default="", metavar="KIND", help="Its kind, as the provider names it."),
        click.option(
            "--max-price",
            callback=to_usd,
            metavar="USD",
            help="Most to pay for an hour of spot; else as on demand.",
        ),
        click.option(
            "--on-preempt",
            type=click.Choice([each.value for each in OnPreempt]),
            help="When spot is taken: end it, or stop it and start it again on the same disk.",
        ),
        click.option("--subnet", default="", metavar="ID", help="Network to put it in; else the default."),
        click.option("--fixed-address", is_flag=True, help="An address that stays over stop and start."),
        click.option("--dns-label", default="", metavar="LABEL", help="Azure: a name for its address."),
        click.option(
            "--resource-group", default="", metavar="NAME", help="Azure: put it in one that exists."
        ),
        click.option(
            "--base-image", is_flag=True, help="The published image, even where one of your own fits."
        ),
        click.option("--retry-until-up", is_flag=True, help="When nobody has one, ask until one has."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def take_rent_options(asked: dict[str, Any]) -> dict[str, Any]:
    """The parsed options as the Client takes them."""
    rest = dict(asked)
    on_preempt = rest.pop("on_preempt")
    options = LaunchOptions(
        on_preempt=OnPreempt(on_preempt) if on_preempt else None,
        max_price_per_hour_usd=rest.pop("max_price"),
        subnet=rest.pop("subnet"),
        fixed_address=rest.pop("fixed_address"),
        dns_label=rest.pop("dns_label"),
        resource_group=rest.pop("resource_group"),
        disk_type=rest.pop("disk_type"),
        base_image=rest.pop("base_image"),
    )
    return {**rest, "disk_gb": rest["disk_gb"] or 0, "options": options}
