"""Answers that go wrong on request: refusals at once or late, throttling, answers that get lost."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from cloudrun.sim.azure.wire import ApiError

EVERY_CALL = "*"

_MESSAGES = {
    "TooManyRequests": "The server rejected the request because too many requests have been received for "
    "this subscription.",
    "AllocationFailed": "Allocation failed. We do not have sufficient capacity for the requested VM size in "
    "this region.",
    "ZonalAllocationFailed": "Allocation failed. We do not have sufficient capacity for the requested VM "
    "size in this zone.",
    "OverconstrainedAllocationRequest": "Allocation failed. VM(s) with the given constraints cannot be "
    "allocated, because the condition is too restrictive.",
    "SkuNotAvailable": "The requested VM size is currently not available in this location. Please try "
    "another size or deploy to a different location or different zone.",
    "MissingSubscriptionRegistration": "The subscription is not registered to use namespace "
    "'Microsoft.Compute'. See https://aka.ms/rps-not-found for how to register subscriptions.",
    "InternalServerError": "The server encountered an unexpected condition. Please try again later.",
}


@dataclass(slots=True)
class Fault:
    """A refusal for calls that fit: each of operation, region, type and market that is not "" must fit.

    `operation` is Azure's name of the right, "Microsoft.Compute/virtualMachines/write", or * for all.
    `skip` calls pass first, then `times` calls fail (None: all), every `every`-th one of them.
    `late`: the call is accepted, its long-running operation fails. With `lose_answer` the call is done
    and its connection then cut, whatever the code says.
    """

    operation: str
    code: str = ""
    message: str = ""
    status: int = 0
    region: str = ""
    type: str = ""
    market: str = ""
    times: int | None = 1
    skip: int = 0
    every: int = 1
    late: bool = False
    lose_answer: bool = False
    retry_after_s: float | None = None
    seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.code and not self.lose_answer:
            raise ValueError("a fault needs a code, or lose_answer")
        if self.lose_answer and (self.about_a_machine or self.late):
            raise ValueError("an answer gets lost whatever the machine: leave out type, market and late")
        if self.every < 1 or self.skip < 0 or (self.times is not None and self.times < 1):
            raise ValueError("every and times are at least 1, skip at least 0")

    def error(self) -> ApiError:
        text = self.message or _MESSAGES.get(self.code, f"{self.code}, as the rehearsal was told")
        headers = {} if self.retry_after_s is None else {"Retry-After": f"{self.retry_after_s:g}"}
        return ApiError(self.code, text, self.status, headers=headers)

    @property
    def about_a_machine(self) -> bool:
        """Whether it can only be judged once type and market are known."""
        return bool(self.type or self.market)


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is about, as far as it is known."""

    operation: str
    region: str
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

    def take(self, target: Target, *, machine: bool) -> Fault | None:
        """The fault that strikes now, if any. `machine`: judge the faults that name type or market."""
        with self._lock:
            for fault in self._faults:
                if fault.about_a_machine == machine and _fits(fault, target) and self._strikes(fault):
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
        ("" if fault.operation == EVERY_CALL else fault.operation.lower(), target.operation.lower()),
        (fault.region, target.region),
        (fault.type, target.type),
        (fault.market, target.market),
    )
    return all(want in ("", is_) for want, is_ in wanted)
