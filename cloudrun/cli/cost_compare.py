"""cost compare: the same work on every fitting offer, on services, and on a computer of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import click

from cloudrun.attempts import DEFAULT_DISK_GB
from cloudrun.cli import render
from cloudrun.cli.cost_text import (
    Money,
    currency_options,
    read_amount,
    read_money,
    read_own_pc,
    say_wrapped,
)
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import (
    complete_run,
    json_option,
    market_option,
    open_client,
    region_option,
    to_pairs,
)
from cloudrun.cli.table import Column
from cloudrun.cli.text import plural
from cloudrun.client_money import Comparison
from cloudrun.comparing import SAME_HOURS, Alternative, number, parse_speeds
from cloudrun.errors import UsageError
from cloudrun.ledger import SMALLEST_GB
from cloudrun.models import Market
from cloudrun.ownpc import OwnPc

SHOWN = 30
LONG_NOTE = 24  # characters; what is longer stands below the table, and its number in it


@click.command(
    cls=Verb,
    examples=(
        "cloudrun cost compare --hours 45 --gpu K80",
        "cloudrun cost compare --like last --speed T4=1.8 --speed V100=6",
        "cloudrun cost compare svhn_rcnn --preset paper --spot",
        "cloudrun cost compare --hours 45 --gpu K80 --own-pc watts=350,tariff=28JPY,purchase=120000JPY",
    ),
)
@click.argument("job", required=False, default="")
@click.option(
    "--hours", callback=lambda *given: _hours(given[2]), metavar="H", help="The work takes so long."
)
@click.option(
    "--like", default="", metavar="RUN", shell_complete=complete_run, help="As long as that run took."
)
@click.option("--preset", default="", help="Of the job: as long as its runs took, or its limit.")
@click.option(
    "--gpu", "gpus", multiple=True, help="Only with this GPU; hours are those of the first. Repeatable."
)
@click.option("--type", "types", multiple=True, help="Only this type, e.g. p2.xlarge. Repeatable.")
@market_option
@region_option
@click.option("--all-regions", is_flag=True, help="Each region, not the cheapest alone.")
@click.option("--disk", "disk_gb", type=click.IntRange(0, 65536), default=DEFAULT_DISK_GB, show_default=True,
              metavar="GB", help="Disk rented with the machine.")  # fmt: skip
@click.option("--egress", default="", metavar="GB",
              help="Sent home, an estimate; with --like else what the run sent.")  # fmt: skip
@click.option("--speed", "speeds", multiple=True, metavar="GPU=RATIO", callback=to_pairs,
              help="So many times as fast as the first --gpu. Repeatable.")  # fmt: skip
@click.option("--own-pc", default="", metavar="FACTS",
              help="watts=, tariff= per kWh, purchase=, lifetime= (3y, or 10000h of use), gpu=.")  # fmt: skip
@click.option("--paid", default="", metavar="AMOUNT", help="What it really cost, as a line to compare with.")
@click.option("--prices", type=click.Choice(["now", "2017"]), default="now", show_default=True,
              help="Today's catalogue, or the field reports of 2017.")  # fmt: skip
@currency_options
@click.option(
    "-n", "--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="At most this many."
)
@json_option
def compare(
    job: str, hours: Decimal | None, like: str, preset: str, gpus: tuple[str, ...], types: tuple[str, ...],
    market: Market | None, regions: tuple[str, ...], all_regions: bool, disk_gb: int, egress: str,
    speeds: tuple[tuple[str, str], ...], own_pc: str, paid: str, prices: str, currency: str,
    rate_pairs: tuple[str, ...], limit: int, as_json: bool,
) -> None:  # fmt: skip
    """Show what the same work costs elsewhere.

    Every fitting offer, on demand and spot, by its provider's billing granularity and minimum, with disk and
    public address; services at their flat price of the day; an own PC. Prices are the catalogue's, each with
    its date. A GPU is taken to be faster only by --speed, or where runs of ours measured it.
    """
    client = open_client()
    money = read_money(client.settings, currency, rate_pairs)
    pc = read_own_pc(own_pc, money.rates)
    found = client.compare(
        hours=hours, like=like, job=job, preset=preset, gpus=gpus, types=types, market=market,
        regions=regions, all_regions=all_regions, disk_gb=disk_gb, egress_gb=_egress(egress),
        speeds=parse_speeds(speeds), own_pc=pc, old_prices=prices == "2017", rates=money.rates,
        paid_usd=read_amount(paid, money.rates, "--paid") if paid else None,
    )  # fmt: skip
    shown = found.alternatives[:limit]
    if as_json:
        render.as_json(_shape(found, shown, money, pc))
        return
    long = _long_notes(shown)
    render.table(_columns(money.currency), [_row(each, found, money, pc, [*long]) for each in shown])
    say_wrapped([*_numbered(long), *_remarks(found, shown, money, pc)])


def _hours(text: str | None) -> Decimal | None:
    if text is None:
        return None
    value = number(text)
    if value is None or not 0 < value <= 1_000_000:
        raise UsageError(f"--hours {text}: no number of hours", hint="e.g. --hours 45, at most 1,000,000")
    return value


def _egress(text: str) -> Decimal | None:
    if not text:
        return None
    value = number(text)
    if value is None or value < 0:
        raise UsageError(f"--egress {text}: no number of GB", hint="e.g. --egress 20")
    return value


def _columns(currency: str) -> tuple[Column, ...]:
    return (
        Column("TYPE", 0),
        Column("PROVIDER", 5),
        Column("REGION", 7, least=9, optional=True),
        Column("MARKET", 3),
        Column("GPU", 6, optional=True),
        Column("HOURS", 3, right=True, optional=True),
        Column(f"{currency}/H", 1, right=True),
        Column("AS OF", 4, optional=True),
        Column("DISK+IP", 8, right=True),
        Column("EGRESS", 8, right=True, optional=True),
        Column(f"TOTAL {currency}", 0, right=True),
        Column("PC PAYS OFF", 2, right=True, optional=True),
        Column("NOTE", 6, least=18, optional=True),
    )


def _long_notes(shown: Sequence[Alternative]) -> dict[str, dict[str, None]]:
    """The notes that a table has no room for, in their order, each with the types that it is about."""
    found: dict[str, dict[str, None]] = {}
    for each in shown:
        for note in each.brief:
            if len(note) > LONG_NOTE:
                found.setdefault(note, {})[each.name] = None
    return found


def _numbered(notes: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """As they stand below the table, with the types that they do not name themselves."""
    for place, (note, types) in enumerate(notes.items(), start=1):
        unnamed = [name for name in types if name not in note]
        yield f"({place}) " + (f"{', '.join(unnamed)}: " if unnamed else "") + note


def _row(
    each: Alternative, found: Comparison, money: Money, pc: OwnPc | None, long: Sequence[str]
) -> tuple[str, ...]:
    extra = each.disk_usd + each.address_usd
    return (
        each.name,
        each.provider,
        each.region,
        each.market,
        _gpu(each, found),
        "" if each.hours == found.work.hours else f"{each.hours:,.1f}",
        money.per_hour(each.price_per_hour_usd),
        each.price_as_of,
        money.total(extra) if each.kind == "offer" else "",
        money.total(each.egress_usd) if each.egress_usd else "",
        money.total(each.total_usd),
        _pays_off(each, pc),
        ", ".join(f"({long.index(note) + 1})" if note in long else note for note in each.brief),
    )


def _gpu(each: Alternative, found: Comparison) -> str:
    """`1 of 8 K80` where the work uses fewer than are rented."""
    needed = max(1, found.work.gpu_count)
    if each.gpu_count > needed:
        return f"{needed} of {each.gpu_count} {each.gpu}"
    return f"{each.gpu_count} x {each.gpu}" if each.gpu_count > 1 else each.gpu


def _pays_off(each: Alternative, pc: OwnPc | None) -> str:
    """After so many hours of use of the own PC its purchase is paid by what this costs more."""
    if pc is None or pc.purchase_usd is None or each.kind == "own-pc" or each.total_usd is None:
        return ""
    return "never" if each.break_even_hours is None else f"{each.break_even_hours:,.0f} h"


def _remarks(found: Comparison, shown: Sequence[Alternative], money: Money, pc: OwnPc | None) -> list[str]:
    work = found.work
    on = f" on {work.gpu}" if work.gpu else ""
    lines = [f"{_plain(work.hours)} h{on} ({found.hours_from}), disk {work.disk_gb} GB where one is rented"]
    if work.egress_gb >= SMALLEST_GB:
        lines.append(f"{work.egress_gb:,.1f} GB sent home, an estimate")
    if pc is not None:
        lines += _pc_remarks(pc, work.hours, money)
    assumed = dict.fromkeys(each.gpu or each.name for each in shown if SAME_HOURS in each.notes)
    if assumed:
        lines.append(f"{SAME_HOURS} on {', '.join(assumed)}; --speed GPU=RATIO says otherwise")
    retired = dict.fromkeys(each.name for each in shown if each.retired)
    if retired:
        lines.append(f"not rented out any more: {', '.join(retired)}")
    if money.remark():
        lines.append(money.remark())
    left = len(found.alternatives) - len(shown)
    if left:
        lines.append(f"{plural(left, 'more line')}; show them with --limit {len(found.alternatives)}")
    return lines


def _pc_remarks(pc: OwnPc, hours: Decimal, money: Money) -> list[str]:
    """Per hour, total, and what the purchase does."""
    per_hour, per_kwh = pc.electricity_per_hour_usd, money.per_hour(pc.tariff_usd_per_kwh)
    lines = [
        f"own PC: {_plain(pc.watts)} W at {per_kwh} {money.currency}/kWh"
        f" = {money.per_hour(per_hour)} {money.currency}/h, {money.total(per_hour * hours)} for the work"
    ]
    if pc.purchase_usd is None:
        return lines
    bought = f"{money.total(pc.purchase_usd)} {money.currency}"
    if pc.lifetime_hours:
        share = f"{money.per_hour(pc.purchase_per_hour_usd)} {money.currency}/h"
        return [*lines, f"its purchase, {bought} over {pc.lifetime_hours:,.0f} h, is in its line: {share}"]
    return [*lines, f"its purchase, {bought}, is not in its line: PC PAYS OFF says when it is paid"]


def _plain(value: Decimal) -> str:
    return f"{value:.1f}" if value != value.to_integral_value() else f"{value:,.0f}"


def _shape(found: Comparison, shown: Sequence[Alternative], money: Money, pc: OwnPc | None) -> dict[str, Any]:
    return {
        "hours": float(found.work.hours),
        "hours_from": found.hours_from,
        "gpu": found.work.gpu,
        "disk_gb": found.work.disk_gb,
        "egress_gb": float(found.work.egress_gb),
        "currency": money.currency,
        "rate": float(money.rates[money.currency]),
        "own_pc": None if pc is None else _pc_shape(pc),
        "alternatives": [_alternative_shape(each, money) for each in shown],
    }


def _pc_shape(pc: OwnPc) -> dict[str, Any]:
    return {
        "watts": float(pc.watts),
        "electricity_per_hour_usd": _usd(pc.electricity_per_hour_usd),
        "purchase_usd": _usd(pc.purchase_usd),
        "lifetime_hours": None if pc.lifetime_hours is None else float(pc.lifetime_hours),
        "purchase_per_hour_usd": _usd(pc.purchase_per_hour_usd),
    }


def _alternative_shape(each: Alternative, money: Money) -> dict[str, Any]:
    total = money.exact(each.total_usd)
    return {
        "kind": each.kind,
        "name": each.name,
        "provider": each.provider,
        "region": each.region,
        "market": each.market,
        "gpu": each.gpu,
        "gpu_count": each.gpu_count,
        "hours": round(float(each.hours), 6),
        "billed_hours": None if each.billed_hours is None else round(float(each.billed_hours), 6),
        "speed": None if each.speed is None else float(each.speed.ratio),
        "speed_from": "" if each.speed is None else each.speed.source,
        "price_per_hour_usd": _usd(each.price_per_hour_usd),
        "price_as_of": each.price_as_of,
        "compute_usd": _usd(each.compute_usd),
        "disk_usd": _usd(each.disk_usd),
        "address_usd": _usd(each.address_usd),
        "egress_usd": _usd(each.egress_usd),
        "retired": each.retired,
        "total_usd": _usd(each.total_usd),
        "total": None if total is None else float(total),
        "break_even_hours": None if each.break_even_hours is None else round(float(each.break_even_hours), 1),
        "notes": list(each.notes),
    }


def _usd(amount: Decimal | None) -> float | None:
    return None if amount is None else round(float(amount), 6)
