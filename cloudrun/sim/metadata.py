"""The metadata service that a machine asks about itself: HTTP on a socket of the machine's, and AWS's rules
(Azure's are in azure/events.py and azure/metadata.py).

IMDSv2 as in https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html,
read 2026-11; version 1, without a token, is refused as on a machine that requires tokens.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler

from cloudrun.sim.acceptor import Acceptor
from cloudrun.sim.spec import Answer, Respond

TOKEN_PATH = "/latest/api/token"  # noqa: S105  # a path
LONGEST_TOKEN_S = 21600
DATA_PATH = re.compile(r"/(?:latest|\d{4}-\d\d-\d\d)/meta-data/(.*)")
PATIENCE_S = 10.0  # with a client that connects and says nothing


class Imds:
    """AWS's service of one machine. `content` maps a path below meta-data/ to text; None is 404."""

    def __init__(
        self, content: Callable[[str], str | None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._content = content
        self._clock = clock
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()

    def respond(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, bytes]:
        """What the service answers; none of its questions has a body."""
        del body
        path = path.partition("?")[0]
        if path == TOKEN_PATH:
            return self._grant(method, headers)
        if method not in ("GET", "HEAD"):
            return 405, b""
        if not self._knows(headers.get("x-aws-ec2-metadata-token", "")):
            return 401, b""
        found = DATA_PATH.fullmatch(path)
        text = self._content(found[1].rstrip("/")) if found else None
        return (404, b"") if text is None else (200, text.encode())

    def _grant(self, method: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        if method != "PUT":
            return 405, b""
        if "x-forwarded-for" in headers:
            return 403, b""
        ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not ttl.isdecimal() or not 1 <= int(ttl) <= LONGEST_TOKEN_S:
            return 400, b""
        token, now = secrets.token_urlsafe(40), self._clock()
        with self._lock:
            self._tokens = {known: end for known, end in self._tokens.items() if end > now}
            self._tokens[token] = now + int(ttl)
        return 200, token.encode()

    def _knows(self, token: str) -> bool:
        with self._lock:
            return self._tokens.get(token, 0.0) > self._clock()


class MetadataServer(Acceptor):
    """Answers HTTP on a listening socket until closed."""

    def __init__(self, listener: socket.socket, respond: Respond) -> None:
        self._handler = _handler(respond)
        super().__init__(listener, self._answer, name="metadata")

    def _answer(self, connection: socket.socket, peer: object) -> None:
        connection.settimeout(PATIENCE_S)
        with contextlib.suppress(OSError), connection:  # a machine that ends cuts its own question off
            self._handler(connection, peer, self)


def _handler(respond: Respond) -> Callable[[socket.socket, object, object], BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            status, body, *more = self._respond()
            self.send_response(status)
            for name, value in ({"Content-Type": "text/plain"} | (dict(more[0]) if more else {})).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _respond(self) -> Answer:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            names = {name.lower(): value for name, value in self.headers.items()}
            return respond(self.command, self.path, names, body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815  # http.server finds them by name

        def log_message(self, format: str, *args: object) -> None:
            """Silent: the doubles keep their own record of what was asked."""

    return Handler  # type: ignore[return-value]
