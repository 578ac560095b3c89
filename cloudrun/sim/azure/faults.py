"""What goes wrong on request at Azure: refusals at once or late, throttling, answers that get lost."""

from __future__ import annotations

from dataclasses import dataclass

from cloudrun.sim.azure.wire import ApiError
from cloudrun.sim.faults import CloudFault, Target

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


@dataclass
class Fault(CloudFault):
    """A refusal in Azure's words. `call` is Azure's name of the right, in capital or small letters:
    "Microsoft.Compute/virtualMachines/write", or * for all. `late`: the call is accepted, its
    long-running operation fails.
    """

    late: bool = False
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        if self.zone:
            raise ValueError("Azure's calls do not tell their zone: leave it out")
        if self.lose_answer and (self.about_a_machine or self.late):
            raise ValueError("an answer gets lost whatever the machine: leave out type, market and late")
        super().__post_init__()
        self.call = self.call.lower()

    def error(self) -> ApiError:
        headers = {} if self.retry_after_s is None else {"Retry-After": f"{self.retry_after_s:g}"}
        return ApiError(self.code, self.words(_MESSAGES), self.status, headers=headers)


def target_of(operation: str, region: str, *, type: str = "", market: str = "") -> Target:
    """What a call is about. Azure tells no small letters from capital ones in an operation's name."""
    return Target(operation.lower(), region, type=type, market=market)
