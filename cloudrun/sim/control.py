"""/_sim/: steering a double over HTTP, for other processes. JSON in, JSON out; 400 and why for a mistake.

GET  address           the caller's address, as text
GET  calls, instances  what was called, and every machine that ever was
POST NAME              a method of the double, with its parameters by name: set-spot-price, preempt
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import InvalidOperation
from http import HTTPStatus
from typing import Any, Protocol

BEGINS = "/_sim/"  # the paths that are answered here
JSON, TEXT = "application/json", "text/plain; charset=utf-8"

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Steered(Protocol):
    """What every double tells of itself."""

    def calls_as_json(self) -> list[dict[str, Any]]: ...
    def instances(self) -> list[dict[str, Any]]: ...


class Control:
    """A WSGI application for one double, whose methods `told` take POSTs. They are named as they are, without
    a unit: set_visible_after_s is set-visible-after."""

    def __init__(self, double: Steered, *told: Callable[..., None]) -> None:
        self._asked = {"calls": double.calls_as_json, "instances": double.instances}
        self._told = {method.__name__.removesuffix("_s").replace("_", "-"): method for method in told}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method, name = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(BEGINS)
        sent = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # or the line is lost
        if method == "GET" and name == "address":
            return _send(start_response, HTTPStatus.OK, str(environ.get("REMOTE_ADDR", "")).encode(), TEXT)
        status, content = self._answer(method, name, sent)
        return _send(start_response, status, json.dumps(content).encode(), JSON)

    def _answer(self, method: str, name: str, sent: bytes) -> tuple[HTTPStatus, Any]:
        if method == "GET" and name in self._asked:
            return HTTPStatus.OK, self._asked[name]()
        if method != "POST" or name not in self._told:
            known = ", ".join(["address", *self._asked, *self._told])
            return HTTPStatus.NOT_FOUND, {"message": f"no {method} {name}; known: {known}"}
        try:
            self._told[name](**_parameters(sent))
        except (ValueError, TypeError, InvalidOperation) as error:
            return HTTPStatus.BAD_REQUEST, {"message": str(error)}
        return HTTPStatus.OK, {}


def _parameters(sent: bytes) -> dict[str, Any]:
    told = json.loads(sent or b"{}")
    if not isinstance(told, dict):
        raise TypeError("send a JSON object")
    return told


def _send(start_response: StartResponse, status: HTTPStatus, body: bytes, kind: str) -> Iterable[bytes]:
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]
