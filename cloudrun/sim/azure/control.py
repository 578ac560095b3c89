"""/_sim/: steering over HTTPS, for other processes. JSON in, JSON out; 400 with a message for a mistake.

GET  address                                  the caller's address, as text
GET  calls, instances
POST fault, throttle, preempt, event, set-spot-price, set-quota, set-capacity, restrict, allow, halt,
     expire-tokens, clear-faults, forget-calls       parameters as the methods of AzureDouble have them
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import InvalidOperation
from typing import TYPE_CHECKING, Any

from cloudrun.sim.azure.wire import Body, Environ, Reply, read_request

if TYPE_CHECKING:
    from cloudrun.sim.azure.double import AzureDouble


class Control:
    """Answers for one double."""

    def __init__(self, double: AzureDouble) -> None:
        self._asked: dict[str, Callable[[], Any]] = {
            "calls": double.calls_as_json,
            "instances": double.instances,
        }
        self._told: dict[str, Callable[..., None]] = {
            "fault": double.fault,
            "throttle": double.throttle,
            "clear-faults": double.clear_faults,
            "preempt": double.preempt,
            "event": double.event,
            "set-spot-price": double.set_spot_price,
            "set-quota": double.set_quota,
            "set-capacity": double.set_capacity,
            "restrict": double.restrict,
            "allow": double.allow,
            "halt": double.halt,
            "expire-tokens": double.expire_tokens,
            "forget-calls": double.forget_calls,
        }

    def answer(self, environ: Environ, name: str) -> Reply:
        request = read_request(environ)
        if request.method == "GET" and name == "address":
            return Reply(200, str(environ.get("REMOTE_ADDR", "")).encode())
        if request.method == "GET" and name in self._asked:
            return Reply(200, self._asked[name]())
        if request.method == "POST" and name in self._told:
            return _tell(self._told[name], request.body)
        known = ", ".join(["address", *self._asked, *self._told])
        return Reply(404, {"message": f"no {request.method} {name}; known: {known}"})


def _tell(method: Callable[..., None], told: Body | None) -> Reply:
    try:
        if told is not None and not isinstance(told, dict):
            return Reply(400, {"message": "send a JSON object"})
        method(**(told or {}))
    except (ValueError, TypeError, InvalidOperation) as error:
        return Reply(400, {"message": str(error)})
    return Reply(200, {})
