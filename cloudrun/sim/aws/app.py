"""The WSGI application: every call is counted, judged and then answered here or by moto.

The order is AWS's: throttling, then rights, then the call itself.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from cloudrun.sim import control
from cloudrun.sim.aws import objects, pricing, rights, seeds
from cloudrun.sim.aws.images import Images
from cloudrun.sim.aws.spot import Spot
from cloudrun.sim.aws.volumes import Volumes
from cloudrun.sim.aws.wire import (
    ApiError,
    Environ,
    Handler,
    Reply,
    Request,
    error_reply,
    read_request,
)
from cloudrun.sim.aws.world import World
from cloudrun.sim.faults import Target

MOST_CALLS = 100_000  # remembered
_OTHER_WAYS = ("RequestSpotInstances", "RequestSpotFleet", "CreateFleet", "CreateAutoScalingGroup")

log = logging.getLogger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call that came in. `code` is the error code that was answered, "" for success."""

    service: str
    action: str
    region: str
    at: datetime
    status: int
    code: str = ""


class App:
    """The double as a WSGI application. `steering` answers what begins with /_sim/."""

    def __init__(self, world: World, spot: Spot, steering: control.Control) -> None:
        self._world = world
        self._control = steering
        self._handlers = _handlers(world, spot)
        self._spot = spot
        self._seeded: set[str] = set()
        self._calls: deque[Call] = deque(maxlen=MOST_CALLS)
        self._calls_lock = threading.Lock()
        self.rights_on = False

    def calls(self) -> list[Call]:
        with self._calls_lock:
            return list(self._calls)

    def forget_calls(self) -> None:
        with self._calls_lock:
            self._calls.clear()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith(control.BEGINS):
            return self._control(environ, start_response)
        request = read_request(environ)
        reply, lost = self._answer(request)
        call = Call(
            request.service, request.action, request.region, datetime.now(UTC), reply.status, reply.code
        )
        with self._calls_lock:
            self._calls.append(call)
        if lost:
            _cut(environ)
        return _send(reply, start_response)

    def _answer(self, request: Request) -> tuple[Reply, bool]:
        """The answer, and whether it gets lost on its way."""
        fault = self._world.faults.take(Target(request.action, request.region), machine=False)
        if fault and not fault.lose_answer:
            return error_reply(request, fault.error()), False
        return self._judge(request), fault is not None

    def _judge(self, request: Request) -> Reply:
        try:
            if self.rights_on:
                rights.check(request)
            return self._handle(request)
        except ApiError as error:
            return error_reply(request, error)
        except Exception:
            log.exception("%s %s failed", request.service, request.action)
            return error_reply(request, ApiError("InternalError", "An internal error has occurred"))

    def _handle(self, request: Request) -> Reply:
        with self._world.lock:
            if request.region not in self._seeded and seeds.zones_of(request.region):
                seeds.add_images(request.region)
                self._seeded.add(request.region)
            if request.service == "ec2":
                self._spot.instances.check_visible(request)
            handler = self._handlers.get((request.service, request.action), self._world.backend.call)
            return handler(request)


def _handlers(world: World, spot: Spot) -> dict[tuple[str, str], Handler]:
    """What moto lacks or does otherwise; everything else is moto's."""
    volumes, images = Volumes(world), Images(world)
    ec2: dict[str, Handler] = {
        "RunInstances": spot.launching.run_instances,
        "DescribeInstances": spot.instances.describe,
        "DescribeInstanceTypeOfferings": spot.instances.describe_offerings,
        "TerminateInstances": spot.instances.terminate,
        "StopInstances": spot.instances.stop,
        "StartInstances": spot.instances.start,
        "RebootInstances": spot.instances.reboot,
        "ModifyInstanceAttribute": spot.instances.modify_attribute,
        "DescribeSpotInstanceRequests": spot.describe_requests,
        "CancelSpotInstanceRequests": spot.cancel_requests,
        "DescribeSpotPriceHistory": spot.price_history,
        "GetSpotPlacementScores": spot.placement_scores,
        "ModifyVolume": volumes.modify,
        "DescribeVolumesModifications": volumes.describe_modifications,
        "DeleteSecurityGroup": volumes.delete_group,
        "CreateImage": images.create,
        "DeregisterImage": images.deregister,
        **dict.fromkeys(_OTHER_WAYS, _not_rehearsed),
    }
    quotas = (
        "ListServices",
        "ListServiceQuotas",
        "ListAWSDefaultServiceQuotas",
        "GetServiceQuota",
        "GetAWSDefaultServiceQuota",
        "RequestServiceQuotaIncrease",
    )
    return {
        **{("ec2", action): handler for action, handler in ec2.items()},
        **{("servicequotas", action): world.quotas.answer for action in quotas},
        **{("pricing", action): pricing.answer for action in pricing.ACTIONS},
        **{("s3", action): objects.checked(world.backend.call) for action in objects.CHECKED},
    }


def _not_rehearsed(request: Request) -> Reply:
    raise ApiError("UnsupportedOperation", f"{request.action} is not rehearsed: use RunInstances.")


def _cut(environ: Environ) -> None:
    """The connection ends without an answer, as when a line breaks after the call arrived."""
    line: socket.socket | None = environ.get("werkzeug.socket")
    if line is not None:
        line.shutdown(socket.SHUT_RDWR)


def _send(reply: Reply, start_response: StartResponse) -> Iterable[bytes]:
    headers = list(reply.headers) or [("Content-Type", reply.content_type)]
    if reply.body:  # without one, it is the length of what a HEAD asks about
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
    if not any(name.lower() == "content-length" for name, _ in headers):
        headers.append(("Content-Length", str(len(reply.body))))
    start_response(f"{reply.status} {_phrase(reply.status)}", headers)
    return [reply.body]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
