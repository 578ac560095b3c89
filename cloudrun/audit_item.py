"""What an audit finds: one thing each, with what is wrong with it and what mends that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from cloudrun.models import Machine
from cloudrun.providers.base import Leftover

HOME = "here"  # in place of a provider: on this computer


class Cure(StrEnum):
    """What `--fix` does about a finding, in the order in which it is done."""

    ADOPT = "adopt"
    STOP = "stop"
    GUARD = "set its guard"
    TERMINATE = "terminate"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing at a provider. `problem` is "" where it is well; without a cure it is only shown."""

    provider: str
    region: str
    kind: str
    name: str
    id: str
    state: str = ""
    since: datetime | None = None
    price_per_month_usd: Decimal | None = Decimal(0)  # None = unknown
    used_by: str = ""  # the machine, run or person that it is for
    problem: str = ""
    cure: Cure | None = None
    machine: Machine | None = None
    leftover: Leftover | None = None
