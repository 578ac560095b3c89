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


ENDS = (Cure.STOP, Cure.TERMINATE, Cure.FREE)  # what costs money, does so no more


@dataclass(frozen=True, slots=True)
class Item:
    """One thing at a provider. `problem` is "" where it is well; without a cure it is only shown. A foreign
    one is somebody else's of the same account: it is never wrong, and never touched."""

    provider: str
    region: str
    kind: str
    name: str
    id: str
    state: str = ""
    since: datetime | None = None
    price_per_month_usd: Decimal | None = Decimal(0)  # None = unknown
    used_by: str = ""  # the machine, run or person that it is for
    run: str = ""  # id of the last run that it served
    foreign: bool = False
    remark: str = ""  # what there is to know where nothing is wrong
    problem: str = ""
    cure: Cure | None = None
    machine: Machine | None = None
    leftover: Leftover | None = None
