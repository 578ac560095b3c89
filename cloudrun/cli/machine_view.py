"""Machines as people read them. Pure functions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from cloudrun.cli.plan_view import field, price_text
from cloudrun.cli.table import GAP, Column
from cloudrun.cli.text import UNKNOWN, clock, plain_money, short_duration, size, until
from cloudrun.models import Machine, MachineState, Market

if TYPE_CHECKING:
    from cloudrun.health import Finding

MACHINE_COLUMNS = (
    Column("NAME", 0),
    Column("STATE", 1),
    Column("PROVIDER", 4),
    Column("TYPE", 3, least=8),
    Column("MARKET", 6),
    Column("GPU", 5, least=8, optional=True),
    Column("HOST", 8, least=9, optional=True),
    Column("USD/H", 2, right=True),
    Column("COST", 3, right=True),
    Column("UP", 7, right=True, optional=True),
    Column("ENDS", 2, optional=True),
    Column("RUNS", 9, least=8, optional=True),
)
FINDING_COLUMNS = (Column("CHECK", 0), Column("VERDICT", 0), Column("WHAT", 0))  # none is cut: it is wrapped

LEAST_COLUMNS = 30  # of a sentence, however narrow the terminal


def machine_row(
    machine: Machine, cost_usd: Decimal | None, runs: Sequence[str], now: datetime
) -> tuple[str, ...]:
    price = machine.price_per_hour_usd
    return (
        machine.name,
        machine.state.value,
        machine.provider,
        machine.type,
        machine.market.value,
        f"{machine.gpu_count} x {machine.gpu}" if machine.gpu_count else "",
        machine.address.host if machine.address else "",
        UNKNOWN if price is None else plain_money(price),
        UNKNOWN if cost_usd is None else plain_money(cost_usd),
        _up(machine, now),
        "" if machine.state.gone or not machine.deadline_at else _deadline(machine.deadline_at, now),
        " ".join(runs),
    )


def machine_fields(machine: Machine) -> list[str]:
    """One machine in a few lines."""
    address = machine.address
    host = f"{address.user}@{address.host} port {address.port}" if address else ""
    dns = dict(machine.detail).get("dns", "")
    facts = [
        field("machine", machine.name),
        field("state", machine.state.value),
        field("address", host),
        field("dns name", dns),
        field("stack", machine.stack),
        field("price", price_text(machine.price_per_hour_usd, machine.market)),
        field("found", ", ".join(_version(name, value) for name, value in machine.versions if value)),
    ]
    return [line for line in facts if line.split(maxsplit=1)[1:]]


def finding_rows(findings: Sequence[Finding], columns: int) -> list[tuple[str, str, str]]:
    """A line or more for each, as wide as the terminal; what to do about it stands below it."""
    room = columns - max(len(finding.check) for finding in findings) - len("VERDICT") - 2 * GAP
    rows = []
    for finding in findings:
        verdict = "mended" if finding.mended else finding.severity.value
        lines = [*_wrapped(finding.detail, room), *_wrapped(finding.hint, room, mark="-> ")]
        rows += [(finding.check, verdict, lines[0]), *(("", "", line) for line in lines[1:])]
    return rows


def _wrapped(text: str, columns: int, *, mark: str = "") -> list[str]:
    """Broken at spaces alone: a command's words stay whole."""
    indent = " " * len(mark)
    wrapper = textwrap.TextWrapper(max(columns, LEAST_COLUMNS), initial_indent=mark, subsequent_indent=indent)
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.wrap(text)


def billed(machine: Machine) -> bool:
    return machine.market is not Market.OWN


def _version(name: str, value: str) -> str:
    if name.endswith("_bytes"):
        return f"{name.removesuffix('_bytes').replace('_', ' ')} {size(int(value))}"
    return f"{name.replace('_', ' ')} {value}"


def _up(machine: Machine, now: datetime) -> str:
    if machine.launched_at is None or machine.state is MachineState.STOPPED:
        return ""
    return short_duration(((machine.ended_at or now) - machine.launched_at).total_seconds())


def _deadline(moment: datetime, now: datetime) -> str:
    return f"{clock(moment, now)} ({until(moment, now)})"
