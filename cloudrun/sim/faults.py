"""Answers that go wrong on request, at any cloud: which calls a fault fits, and which of those it strikes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

EVERY_CALL = "*"


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is about, as far as it is known. `call` is its name as the cloud has it."""

    call: str
    region: str
    zone: str = ""
    type: str = ""
    market: str = ""


@dataclass
class CloudFault:
    """A refusal for calls that fit: each of call, region, zone, type and market that is not "" must fit.

    `skip` calls pass first, then `times` calls fail (None: all), every `every`-th one of them.
    With `lose_answer` the call is done and its connection then cut, whatever the code says.
    """

    call: str
    code: str = ""
    message: str = ""
    status: int = 0
    region: str = ""
    zone: str = ""
    type: str = ""
    market: str = ""
    times: int | None = 1
    skip: int = 0
    every: int = 1
    lose_answer: bool = False
    seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.code and not self.lose_answer:
            raise ValueError("a fault needs a code, or lose_answer")
        if self.every < 1 or self.skip < 0 or (self.times is not None and self.times < 1):
            raise ValueError("every and times are at least 1, skip at least 0")

    @property
    def about_a_machine(self) -> bool:
        """Whether it can only be judged once type, zone and market are known."""
        return bool(self.zone or self.type or self.market)

    def fits(self, target: Target) -> bool:
        wanted = (
            ("" if self.call == EVERY_CALL else self.call, target.call),
            (self.region, target.region),
            (self.zone, target.zone),
            (self.type, target.type),
            (self.market, target.market),
        )
        return all(want in ("", is_) for want, is_ in wanted)

    def words(self, messages: Mapping[str, str]) -> str:
        """What the refusal says; `messages` are the cloud's own words by code."""
        return self.message or messages.get(self.code, f"{self.code}, as the rehearsal was told")


FaultT = TypeVar("FaultT", bound=CloudFault)


class Faults(Generic[FaultT]):
    """The faults that wait for their calls. Safe from several threads."""

    def __init__(self) -> None:
        self._faults: list[FaultT] = []
        self._lock = threading.Lock()

    def add(self, fault: FaultT) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, target: Target, *, machine: bool) -> FaultT | None:
        """The fault that strikes now, if any. `machine`: judge those that name zone, type or market."""
        with self._lock:
            for fault in self._faults:
                if fault.about_a_machine == machine and fault.fits(target) and self._strikes(fault):
                    return fault
        return None

    def _strikes(self, fault: FaultT) -> bool:
        fault.seen += 1
        turn = fault.seen - fault.skip
        if turn <= 0 or turn % fault.every:
            return False
        if fault.times is not None and turn // fault.every >= fault.times:
            self._faults.remove(fault)
        return True
