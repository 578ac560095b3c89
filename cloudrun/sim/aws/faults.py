"""Answers that go wrong on request: refusals, throttling, answers that get lost."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from cloudrun.sim.aws.wire import ApiError

EVERY_CALL = "*"

_MESSAGES = {
    "RequestLimitExceeded": "Request limit exceeded.",
    "InsufficientInstanceCapacity": "There is no capacity available that matches your request.",
    "InternalError": "An internal error has occurred",
    "Unavailable": "The service is unavailable. Please try again shortly.",
    "UnauthorizedOperation": "You are not authorized to perform this operation.",
}


@dataclass(slots=True)
class Fault:
    """A refusal for calls that fit: each of action, region, zone, type and market that is not "" must fit.

    `skip` calls pass first, then `times` calls fail (None: all), every `every`-th one of them.
    With `lose_answer` the call is done and its connection then cut, whatever the code says.
    """

    action: str
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
        if self.lose_answer and self.about_a_launch:
            raise ValueError("an answer gets lost whatever the launch: leave out zone, type and market")
        if self.every < 1 or self.skip < 0 or (self.times is not None and self.times < 1):
            raise ValueError("every and times are at least 1, skip at least 0")

    def error(self) -> ApiError:
        text = self.message or _MESSAGES.get(self.code, f"{self.code}, as the rehearsal was told")
        return ApiError(self.code, text, self.status)

    @property
    def about_a_launch(self) -> bool:
        """Whether it can only be judged once type, zone and market are known."""
        return bool(self.zone or self.type or self.market)


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is about, as far as it is known."""

    action: str
    region: str
    zone: str = ""
    type: str = ""
    market: str = ""


class Faults:
    """The faults that wait for their calls. Safe from several threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, target: Target, *, launch: bool) -> Fault | None:
        """The fault that strikes now, if any. `launch`: judge the faults that name type, zone or market."""
        with self._lock:
            for fault in self._faults:
                if fault.about_a_launch == launch and _fits(fault, target) and self._strikes(fault):
                    return fault
        return None

    def _strikes(self, fault: Fault) -> bool:
        fault.seen += 1
        turn = fault.seen - fault.skip
        if turn <= 0 or turn % fault.every:
            return False
        if fault.times is not None and turn // fault.every >= fault.times:
            self._faults.remove(fault)
        return True


def _fits(fault: Fault, target: Target) -> bool:
    wanted = (
        ("" if fault.action == EVERY_CALL else fault.action, target.action),
        (fault.region, target.region),
        (fault.zone, target.zone),
        (fault.type, target.type),
        (fault.market, target.market),
    )
    return all(want in ("", is_) for want, is_ in wanted)
