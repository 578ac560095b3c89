"""Long-running operations: accepted at once, done a moment later, asked about until then."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.store import SUBSCRIPTION, World
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request, timestamp

NETWORK = "Microsoft.Network"
MOST_OPERATIONS = 20_000  # remembered

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Operation:
    """One of them. `word` stands in its address: operations, DiskOperations."""

    namespace: str
    word: str
    location: str
    api_version: str
    poll_s: float
    late: ApiError | None  # it was told to fail
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "InProgress"
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    error: ApiError | None = None
    output: Any = None

    def headers(self, base_url: str, *, ask: bool = True, location: bool = True) -> dict[str, str]:
        """What tells a client where to ask: Azure-AsyncOperation, Location or both."""
        headers = wait_headers(self.poll_s)
        home = f"{base_url}/subscriptions/{SUBSCRIPTION}/providers/{self.namespace}/locations/{self.location}"
        version = f"api-version={self.api_version}"
        if ask:
            headers["Azure-AsyncOperation"] = f"{home}/{self.word}/{self.id}?{version}"
        if location and self.namespace == NETWORK:
            headers["Location"] = f"{home}/operationResults/{self.id}?{version}"
        elif location:
            headers["Location"] = f"{home}/{self.word}/{self.id}?monitor=true&{version}"
        return headers

    def finish(self, output: Any = None) -> None:
        self._end("Succeeded")
        self.output = output

    def fail(self, error: ApiError) -> None:
        self._end("Failed")
        self.error = error

    def _end(self, status: str) -> None:
        self.status, self.ended_at = status, datetime.now(UTC)

    def document(self) -> Body:
        """What a look at it shows: networks tell the state alone."""
        document: Body = {"status": self.status}
        if self.error is not None:
            document["error"] = self.error.content()
        if self.namespace == NETWORK:
            return document
        document |= {"startTime": timestamp(self.started_at), "name": self.id}
        if self.ended_at is not None:
            document["endTime"] = timestamp(self.ended_at)
        if self.output is not None:
            document["properties"] = {"output": self.output}
        return document


class Operations:
    """All of them, and the calls that ask about them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._operations: dict[str, Operation] = {}

    def open(self, request: Request, namespace: str, location: str, word: str = "operations") -> Operation:
        """An operation that somebody will end with finish or fail (under the world's lock)."""
        operation = Operation(
            namespace, word, location, request.api_version, self._world.delays.poll_s, request.late
        )
        self._operations[operation.id] = operation
        if len(self._operations) > MOST_OPERATIONS:
            del self._operations[next(iter(self._operations))]
        return operation

    def end_after(
        self,
        operation: Operation,
        delay_s: float,
        done: Callable[[], Any],
        failed: Callable[[ApiError], None] | None = None,
    ) -> None:
        """End it in delay_s seconds: with what `done` returns, or with `failed` where it was told to fail.

        Both are called under the world's lock. An ApiError that `done` raises is how it failed.
        """

        def end() -> None:
            with self._world.lock:
                try:
                    operation.finish(_late_or(operation.late, done))
                except ApiError as error:
                    operation.fail(error)
                    if failed is not None:
                        failed(error)
                except Exception:
                    log.exception("an operation failed")
                    operation.fail(
                        ApiError("InternalExecutionError", "An internal execution error occurred.")
                    )

        self._world.timers.after(delay_s, end)

    def routes(self) -> list[Route]:
        place = "/subscriptions/{subscription}/providers/{namespace}/locations/{location}"
        words = ("operations", "DiskOperations", "operationResults")
        return [
            Route("GET", f"{place}/{word}/{{id}}", f"{{namespace}}/locations/{word}/read", self._ask)
            for word in words
        ] + [
            Route(
                "GET",
                "/subscriptions/{subscription}/operationresults/{id}",
                "Microsoft.Resources/subscriptions/operationresults/read",
                self._ask,
            )
        ]

    def _ask(self, request: Request) -> Reply:
        operation = self._operations.get(request.params["id"])
        if operation is None:
            raise ApiError("NotFound", f"The entity was not found: operation {request.params['id']}.")
        asks_for_result = "monitor" in request.query or "/operationresults/" in request.path.lower()
        if not asks_for_result:
            headers = wait_headers(operation.poll_s) if operation.status == "InProgress" else {}
            return Reply(200, operation.document(), headers)
        if operation.status == "InProgress":
            again = f"{request.base_url}{request.path}?{request.environ.get('QUERY_STRING', '')}"
            return Reply(202, None, {"Location": again, **wait_headers(operation.poll_s)})
        if operation.error is not None:
            raise operation.error
        return Reply(200, operation.output)


def _late_or(late: ApiError | None, done: Callable[[], Any]) -> Any:
    if late is not None:
        raise late
    return done()


def wait_headers(seconds: float) -> dict[str, str]:
    """How long to wait before the next look: Retry-After knows whole seconds alone."""
    if seconds >= 1:
        return {"Retry-After": f"{seconds:.0f}"}
    return {"x-ms-retry-after-ms": f"{seconds * 1000:.0f}"}
