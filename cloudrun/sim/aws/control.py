"""/_sim/: steering over HTTP, for other processes. JSON in, JSON out; 400 with a message for a mistake.

GET  address                                  the caller's address, as text
GET  calls, instances
POST fault, throttle, preempt, set-spot-price, set-quota, set-capacity, set-visible-after, set-rights,
     clear-faults, forget-calls               parameters as the methods of AwsDouble have them
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import InvalidOperation
from typing import TYPE_CHECKING, Any

from cloudrun.sim.aws.wire import TEXT, Environ, Reply

if TYPE_CHECKING:
    from cloudrun.sim.aws.double import AwsDouble

_JSON = "application/json"


class Control:
    """Answers for one double."""

    def __init__(self, double: AwsDouble) -> None:
        self._asked: dict[str, Callable[[], Any]] = {
            "calls": double.calls_as_json,
            "instances": double.instances,
        }
        self._told: dict[str, Callable[..., None]] = {
            "fault": double.fault,
            "throttle": double.throttle,
            "clear-faults": double.clear_faults,
            "preempt": double.preempt,
            "set-spot-price": double.set_spot_price,
            "set-quota": double.set_quota,
            "set-capacity": double.set_capacity,
            "set-visible-after": double.set_visible_after_s,
            "set-rights": double.set_rights,
            "forget-calls": double.forget_calls,
        }

    def answer(self, environ: Environ, name: str) -> Reply:
        method = environ["REQUEST_METHOD"]
        if method == "GET" and name == "address":
            return Reply(200, str(environ.get("REMOTE_ADDR", "")).encode(), TEXT)
        if method == "GET" and name in self._asked:
            return _reply(200, self._asked[name]())
        if method == "POST" and name in self._told:
            return self._tell(self._told[name], environ)
        known = ", ".join(["address", *self._asked, *self._told])
        return _reply(404, {"message": f"no {method} {name}; known: {known}"})

    def _tell(self, method: Callable[..., None], environ: Environ) -> Reply:
        try:
            method(**_told(environ))
        except (ValueError, TypeError, InvalidOperation) as error:
            return _reply(400, {"message": str(error)})
        return _reply(200, {})


def _told(environ: Environ) -> dict[str, Any]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    told = json.loads(environ["wsgi.input"].read(length) or b"{}")
    if not isinstance(told, dict):
        raise TypeError("send a JSON object")
    return told


def _reply(status: int, content: Any) -> Reply:
    return Reply(status, json.dumps(content).encode(), _JSON)
