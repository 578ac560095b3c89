"""Instance types and billing rules, as the CSV files beside this module have them.

An empty cell is unknown or does not apply, never zero. Every file is read once per process,
and only when it is asked for.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path

from cloudrun.errors import NotFound
from cloudrun.words import nearest

FOLDER = Path(__file__).parent
LOCAL = "local"  # both a provider and its one type

_PART_GIB = re.compile(r"\((\d+) GiB\)")  # memory of a partial GPU, as the note of its row has it
_NOT_NVIDIA = ("Radeon", "MI300")
_AZURE_PREFIX = "standard_"


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One size of machine of one provider."""

    provider: str
    type: str
    vcpus: int
    memory_gib: float
    gpu: str
    gpu_count: int  # a share of a GPU counts as one, with its share of the memory
    gpu_memory_gib: float
    gpu_capability: float | None
    arch: str
    family: str
    status: str  # listed | retired | uncertain
    retired_on: date | None
    whole_gpus: bool

    @property
    def nvidia(self) -> bool:
        return bool(self.gpu) and not self.gpu.startswith(_NOT_NVIDIA)


@dataclass(frozen=True, slots=True)
class BillingRule:
    """How one thing is billed, from one day to another (None: open)."""

    provider: str
    what: str
    valid_from: date | None
    valid_to: date | None
    granularity_s: int | None
    minimum_s: int | None
    price_usd: Decimal | None
    unit: str
    region: str
    note: str
    as_of: str
    source: str


def resolve_type(text: str) -> list[tuple[str, str]]:
    """The (provider, type) pairs that a name means, in any case: p2.xlarge, NC6, nc4as_t4_v3, local.

    Azure's "Standard_" may be left out. Raises NotFound with the nearest names.
    """
    wanted = re.sub(r"[\s-]+", "_", text.strip().casefold()) if "." not in text else text.strip().casefold()
    if wanted == LOCAL:
        return [(LOCAL, LOCAL)]
    types = list(_types())
    found = [pair for pair in types if wanted in (pair[1].casefold(), _short(pair[1]).casefold())]
    if not found:
        near = nearest(wanted, [LOCAL, *(_short(name) for _, name in types)], most=0)
        raise NotFound(f"no machine type {text!r}", hint=f"{near} all: cloudrun offers".strip())
    return found


def find_type(provider: str, type: str) -> InstanceType | None:
    """The facts of one type, None where the catalogue does not know it."""
    return _types().get((provider, type))


def list_types(provider: str = "") -> list[InstanceType]:
    """Every type that the catalogue knows, of one provider or of all."""
    return [known for known in _types().values() if provider in ("", known.provider)]


def load_billing() -> list[BillingRule]:
    """All billing rules, in the order of billing.csv."""
    return [_billing_rule(row) for row in read_csv("billing.csv")]


def read_csv(name: str) -> Iterator[dict[str, str]]:
    """The rows of a shipped CSV file, comment lines left out."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))


@cache
def _types() -> dict[tuple[str, str], InstanceType]:
    return {(row["provider"], row["instance_type"]): _instance_type(row) for row in read_csv("instances.csv")}


def _instance_type(row: dict[str, str]) -> InstanceType:
    count = float(row["gpu_count"] or 0)
    share = count if 0 < count < 1 else 1.0
    memory = float(row["gpu_memory_gib"] or 0) * share
    part = _PART_GIB.search(row["note"])
    return InstanceType(
        provider=row["provider"],
        type=row["instance_type"],
        vcpus=int(row["vcpus"] or 0),
        memory_gib=float(row["memory_gib"] or 0),
        gpu=row["gpu_name"],
        gpu_count=math.ceil(count),
        gpu_memory_gib=float(part[1]) if part else memory,
        gpu_capability=float(row["compute_capability"]) if row["compute_capability"] else None,
        arch=row["arch"],
        family=row["family"],
        status=row["status"],
        retired_on=date_or_none(row["retired_on"]),
        whole_gpus=share == 1.0 and part is None,
    )


def _billing_rule(row: dict[str, str]) -> BillingRule:
    return BillingRule(
        provider=row["provider"],
        what=row["what"],
        valid_from=date_or_none(row["valid_from"]),
        valid_to=date_or_none(row["valid_to"]),
        granularity_s=int(row["granularity_seconds"]) if row["granularity_seconds"] else None,
        minimum_s=int(row["minimum_seconds"]) if row["minimum_seconds"] else None,
        price_usd=Decimal(row["price"]) if row["price"] else None,
        unit=row["unit"],
        region=row["region"],
        note=row["note"],
        as_of=row["as_of"],
        source=row["source"],
    )


def date_or_none(text: str) -> date | None:
    """A day written as YYYY-MM-DD; None for an empty cell."""
    return date.fromisoformat(text) if text else None


def _short(name: str) -> str:
    return name[len(_AZURE_PREFIX) :] if name.casefold().startswith(_AZURE_PREFIX) else name
