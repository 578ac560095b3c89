"""Addresses of calls, and who answers them. Azure's are the same in capital and small letters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cloudrun.sim.azure.wire import ApiError, Handler, Request


@dataclass(frozen=True)
class Route:
    """A call. `pattern` holds {names} of one part of the path, or {scope:path} for many.

    `operation` is Azure's name of the right that it takes; {names} of the pattern may stand in it.
    """

    method: str
    pattern: str
    operation: str
    handler: Handler
    public: bool = False  # no token needed: the login service, the price list

    @cached_property
    def regex(self) -> re.Pattern[str]:
        parts = re.split(r"(\{[^}]+\})", self.pattern)
        return re.compile("".join(_part(part) for part in parts) + "/?", re.IGNORECASE)


class Routes:
    """All calls that there are, those that were added first before the others."""

    def __init__(self) -> None:
        self._routes: dict[str, list[Route]] = {}

    def add(self, routes: Iterable[Route]) -> None:
        for route in routes:
            self._routes.setdefault(route.method, []).append(route)

    def find(self, request: Request) -> Route:
        """The route of a call, its parameters and operation noted in it. Raises ApiError."""
        for route in self._routes.get(request.method, []):
            found = route.regex.fullmatch(request.path)
            if found:
                request.params = found.groupdict()
                request.operation = route.operation.format(**request.params)
                return route
        raise ApiError(
            "InvalidResourceType",
            f"The resource type could not be found for {request.method} {request.path} and api version "
            f"'{request.api_version}': the rehearsal lacks it.",
            404,
        )


def _part(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    name, _, kind = part[1:-1].partition(":")
    return f"(?P<{name}>{'.*?' if kind == 'path' else '[^/]+'})"
