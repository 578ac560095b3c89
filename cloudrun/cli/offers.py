"""offers: what can be rented, cheapest first."""

from __future__ import annotations

from decimal import Decimal

import click

from cloudrun.cli import render
from cloudrun.cli.cost_text import Money, currency_options, read_money
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import json_option, market_option, open_client, region_option, to_usd
from cloudrun.cli.shapes import offer_shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import UNKNOWN, plain_money, plural
from cloudrun.models import Market, Offer

SHOWN = 30
USD = "USD"
CONVERTED = "~"  # before a price that is converted, and not the provider's own in that currency
COLUMNS = (
    Column("TYPE", 0),
    Column("PROVIDER", 3),
    Column("REGION", 4, least=9),
    Column("MARKET", 5),
    Column("USD/H", 1, right=True),
    Column("AS OF", 8, optional=True),
    Column("GPU", 2, least=12, optional=True),
    Column("VCPU", 7, right=True),
    Column("GIB", 7, right=True),
    Column("NOTE", 9, least=20, optional=True),
)
PRICE = [column.title for column in COLUMNS].index("USD/H")


@click.command(
    cls=Verb,
    examples=(
        "cloudrun offers",
        "cloudrun offers --gpu k80 --gpu t4 --spot --max-price 0.5",
        "cloudrun offers nc4as_t4_v3 --currency JPY",
        "cloudrun offers p2.xlarge --json",
    ),
)
@click.argument("type", required=False, default="")
@market_option
@click.option("--gpu", "gpus", multiple=True, help="Only with this GPU, e.g. k80. Repeatable.")
@click.option("--min-gpu-memory", type=float, default=0.0, metavar="GIB", help="Least memory of each GPU.")
@click.option("--max-price", callback=to_usd, metavar="USD", help="At most this an hour.")
@region_option
@currency_options
@click.option(
    "-n", "--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="At most this many."
)
@json_option
def offers(
    type: str, market: Market | None, gpus: tuple[str, ...], min_gpu_memory: float, max_price: Decimal | None,
    regions: tuple[str, ...], limit: int, as_json: bool, currency: str, rate_pairs: tuple[str, ...],
) -> None:  # fmt: skip
    """Show what can be rented, cheapest first.

    Live prices where an account can ask, else the catalogue's with their date. An unknown price
    comes last. In another currency, a price that the provider quotes itself is shown as it is; others are
    converted, and marked with ~.
    """
    client = open_client()
    money = read_money(client.settings, currency, rate_pairs)
    found = client.offers(
        gpus=gpus,
        min_gpu_memory_gib=min_gpu_memory,
        type=type,
        market=market,
        regions=regions,
        max_price_per_hour_usd=max_price,
        currency=money.currency,
    )
    if as_json:
        render.as_json([offer_shape(offer) for offer in found[:limit]])
        return
    _show(found[:limit], len(found), money)


def _show(shown: list[Offer], found: int, money: Money) -> None:
    if shown:
        render.table(_columns(money), [_row(offer, money) for offer in shown])
    left = found - len(shown)
    render.say(
        f"{plural(left, 'more offer')}; show them with --limit {found}" if left else plural(found, "offer")
    )
    if any(_price(offer, money).startswith(CONVERTED) for offer in shown):
        render.say(f"{CONVERTED} converted: {money.remark()}")


def _columns(money: Money) -> tuple[Column, ...]:
    if money.currency == USD:
        return COLUMNS
    return (*COLUMNS[:PRICE], Column(f"{money.currency}/H", 1, right=True), *COLUMNS[PRICE:])


def _row(offer: Offer, money: Money) -> tuple[str, ...]:
    gpu = f"{offer.gpu_count} x {offer.gpu} {offer.gpu_memory_gib:g} GiB" if offer.gpu_count else ""
    other = () if money.currency == USD else (_price(offer, money),)
    return (
        offer.type,
        offer.provider,
        offer.zone or offer.region,
        offer.market.value,
        *other,
        UNKNOWN if offer.price_per_hour_usd is None else plain_money(offer.price_per_hour_usd),
        offer.price_as_of.isoformat() if offer.price_as_of else "",
        gpu,
        str(offer.vcpus or ""),
        f"{offer.memory_gib:.3g}" if offer.memory_gib else "",
        offer.why_not or offer.warning,
    )


def _price(offer: Offer, money: Money) -> str:
    """In the currency asked for: as the provider quotes it, else converted and marked."""
    quoted = dict(offer.quoted).get(money.currency)
    if quoted is not None:
        return plain_money(quoted)
    if money.currency == USD or not offer.price_per_hour_usd:
        return money.per_hour(offer.price_per_hour_usd)
    return CONVERTED + money.per_hour(offer.price_per_hour_usd)
