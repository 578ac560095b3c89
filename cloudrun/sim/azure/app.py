"""The WSGI application: every call is counted, judged and then answered.

The order is Azure's: who calls, throttling, rights, then the call itself.
"""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from cloudrun.sim import control
from cloudrun.sim.azure.blob_calls import ACCOUNT
from cloudrun.sim.azure.blobs import Storage
from cloudrun.sim.azure.calls import Call, CallLog
from cloudrun.sim.azure.faults import Fault, target_of
from cloudrun.sim.azure.routes import Route, Routes
from cloudrun.sim.azure.store import SUBSCRIPTION, World
from cloudrun.sim.azure.tls import SOCKET
from cloudrun.sim.azure.wire import ApiError, Environ, Reply, Request, error_reply, read_request

log = logging.getLogger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class App:
    """The double as a WSGI application. `steering` answers what begins with /_sim/."""

    def __init__(self, world: World, steering: control.Control) -> None:
        self._world = world
        self._control = steering
        self.routes = Routes()
        self.storage = Storage()
        self.calls = CallLog()
        login = "/{tenant}/v2.0/.well-known/openid-configuration"
        self.routes.add(
            [
                Route("GET", login, "", world.tokens.configuration, public=True),
                Route("POST", "/{tenant}/oauth2/v2.0/token", "", world.tokens.token, public=True),
            ]
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith(control.BEGINS):
            return self._control(environ, start_response)
        if path.startswith(f"/{ACCOUNT}/"):
            return self.storage(environ, start_response)
        request = read_request(environ)
        time.sleep(self._world.delays.call_s)
        reply, lost = self._answer(request)
        if request.operation:
            self.calls.add(
                Call(
                    request.operation,
                    request.method,
                    request.path,
                    request.region,
                    datetime.now(UTC),
                    reply.status,
                    reply.code,
                    tuple(request.linked),
                )
            )
        if lost:
            _cut(environ)
        reply.headers.setdefault("x-ms-request-id", str(uuid.uuid4()))
        return _send(reply, start_response)

    def _answer(self, request: Request) -> tuple[Reply, bool]:
        """The answer, and whether it gets lost on its way."""
        try:
            route = self.routes.find(request)
            if not route.public:
                request.principal = self._world.tokens.principal(request)
                _check_address(request)
            return self._judge(route, request)
        except ApiError as error:
            return error_reply(error), False

    def _judge(self, route: Route, request: Request) -> tuple[Reply, bool]:
        request.region = self._region(request)
        target = target_of(request.operation, request.region)
        fault = self._world.faults.take(target, machine=False) if request.operation else None
        lost = fault is not None and fault.lose_answer
        if fault is not None and not lost:
            _strike(fault, request)
        try:
            with self._world.lock:
                if not route.public:
                    self._world.authorization.check(request.principal, request.operation, request.path)
                return route.handler(request), lost
        except ApiError as error:
            return error_reply(error), lost
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return error_reply(ApiError("InternalServerError", "An internal error occurred.")), lost

    def _region(self, request: Request) -> str:
        """Where the call belongs, as far as its address or its body tell."""
        if isinstance(request.body, dict) and "location" in request.body:
            return str(request.body["location"]).replace(" ", "").lower()
        if "location" in request.params:
            return request.params["location"].lower()
        with self._world.lock:
            parts = request.path.split("/")
            for end in range(len(parts), 8, -1):
                found = self._world.get("/".join(parts[:end]))
                if found is not None:
                    return found.location
            group = self._world.groups.get(request.params.get("group", "").lower())
            return group.location if group else ""


def _strike(fault: Fault, request: Request) -> None:
    if not fault.late:
        raise fault.error()
    request.late = fault.error()


def _check_address(request: Request) -> None:
    subscription = request.params.get("subscription", SUBSCRIPTION)
    if subscription.lower() != SUBSCRIPTION:
        raise ApiError("SubscriptionNotFound", f"The subscription '{subscription}' could not be found.", 404)
    if not request.api_version:
        raise ApiError(
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
            400,
        )


def _cut(environ: Environ) -> None:
    """The connection ends without an answer, as when a line breaks after the call arrived."""
    line: socket.socket | None = environ.get(SOCKET)
    if line is not None:
        line.shutdown(socket.SHUT_RDWR)


def _send(reply: Reply, start_response: StartResponse) -> Iterable[bytes]:
    content = reply.content()
    headers = list(reply.headers.items())
    if reply.body is not None:
        headers.append(("Content-Type", reply.content_type))
    if reply.status != HTTPStatus.NO_CONTENT:
        headers.append(("Content-Length", str(len(content))))
    start_response(f"{reply.status} {_phrase(reply.status)}", headers)
    return [content]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
