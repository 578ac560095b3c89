"""What travels: calls to Azure Resource Manager as they come in, answers and errors as it words them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

JSON, TEXT = "application/json; charset=utf-8", "text/plain; charset=utf-8"

Environ = dict[str, Any]
Body = dict[str, Any]

# Codes that are not answered with 409 (Azure Resource Manager, "Common deployment errors", and what
# the services of compute and network answer).
_STATUS = {
    "AuthorizationFailed": 403,
    "LinkedAuthorizationFailed": 403,
    "InvalidAuthenticationToken": 401,
    "ExpiredAuthenticationToken": 401,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "InternalExecutionError": 500,
    "ServiceUnavailable": 503,
    "ResourceNotFound": 404,
    "ResourceGroupNotFound": 404,
    "NotFound": 404,
}


class ApiError(Exception):
    """A refusal as Azure words it: a code for programs, a message for people, details underneath."""

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 0,
        *,
        target: str = "",
        details: Sequence[Body] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status or _STATUS.get(code, 409)
        self.target = target
        self.details = list(details)
        self.headers = dict(headers or {})

    def content(self) -> Body:
        """What stands below "error"."""
        content: Body = {"code": self.code, "message": self.message}
        if self.target:
            content["target"] = self.target
        if self.details:
            content["details"] = self.details
        return content


@dataclass(slots=True)
class Request:
    """One call, and what becomes known of it on its way.

    `path` is as sent, `params` what the route found in it, `query` has lower-case names, `body` is None
    where nothing was sent. `late` is set where the call is to be accepted and its operation to fail.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    environ: Environ = field(repr=False)
    params: dict[str, str] = field(default_factory=dict)
    operation: str = ""  # Azure's name of the right that it takes
    principal: str = ""  # object id of the caller
    region: str = ""
    linked: list[str] = field(default_factory=list)  # rights that it took beside its own
    late: ApiError | None = None

    @property
    def api_version(self) -> str:
        return self.query.get("api-version", "")

    @property
    def base_url(self) -> str:
        return f"https://{self.environ.get('HTTP_HOST', 'localhost')}"

    def json(self) -> Body:
        """The body, which has to be a JSON object."""
        if not isinstance(self.body, dict):
            raise ApiError(
                "InvalidRequestContent", "The request content was invalid and could not be deserialized.", 400
            )
        return self.body


@dataclass(slots=True)
class Reply:
    """An answer. body None: an empty one; bytes: text. `code` is the error code, "" for success."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""

    def content(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    @property
    def content_type(self) -> str:
        return TEXT if isinstance(self.body, bytes) else JSON


Handler = Callable[[Request], Reply]


def error_reply(error: ApiError) -> Reply:
    return Reply(error.status, {"error": error.content()}, error.headers, error.code)


def read_request(environ: Environ) -> Request:
    """The call in a WSGI environment. Its body is read whole, so that the connection can go on."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    raw: bytes = environ["wsgi.input"].read(length) if length else b""
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    query = {
        name.lower(): value
        for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    }
    return Request(
        method=environ["REQUEST_METHOD"],
        path=re.sub("/{2,}", "/", environ.get("PATH_INFO", "")),  # clients put scopes behind a slash
        query=query,
        headers=headers,
        body=_body(raw, environ.get("CONTENT_TYPE", "")),
        environ=environ,
    )


def timestamp(moment: datetime | None = None) -> str:
    """As Azure writes times: UTC with seven digits behind the point."""
    moment = (moment or datetime.now(UTC)).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0+00:00"


def _body(raw: bytes, content_type: str) -> Any:
    if not raw:
        return None
    if "form" in content_type:
        return dict(parse_qsl(raw.decode()))
    try:
        return json.loads(raw)
    except ValueError:
        return raw
