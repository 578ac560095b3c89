"""What goes wrong on request at AWS: refusals, throttling, answers that get lost."""

from __future__ import annotations

from dataclasses import dataclass

from cloudrun.sim.aws.wire import ApiError
from cloudrun.sim.faults import CloudFault

_MESSAGES = {
    "RequestLimitExceeded": "Request limit exceeded.",
    "InsufficientInstanceCapacity": "There is no capacity available that matches your request.",
    "InternalError": "An internal error has occurred",
    "Unavailable": "The service is unavailable. Please try again shortly.",
    "UnauthorizedOperation": "You are not authorized to perform this operation.",
}


@dataclass
class Fault(CloudFault):
    """A refusal in EC2's words; `call` is the action, or * for all."""

    def __post_init__(self) -> None:
        if self.lose_answer and self.about_a_machine:
            raise ValueError("an answer gets lost whatever the launch: leave out zone, type and market")
        super().__post_init__()

    def error(self) -> ApiError:
        return ApiError(self.code, self.words(_MESSAGES), self.status)
