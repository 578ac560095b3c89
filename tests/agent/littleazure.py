"""What a machine at Azure can ask: the metadata service, and the management endpoint with one machine in it.

They keep the documented rules: no metadata without its header, no token without an identity, no event that is
approved twice, no deallocation without a token that is good, and the right to it.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import trustme

NAME = "cr-0123456789ab"
GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/cloudrun-(é)"
ID = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{NAME}"
EVENTS, COMPUTE = "/metadata/scheduledevents", "/metadata/instance/compute"
TOKEN = "/metadata/identity/oauth2/token"
VERSIONS = {EVENTS: "2020-07-01", COMPUTE: "2021-02-01", TOKEN: "2018-02-01"}
Answer = tuple[int, bytes, dict[str, str]]


class LittleAzure:
    """On loopback. `faults` are answers given first, by path; `calls` are the methods and paths asked."""

    def __init__(self, folder: Path) -> None:
        self.policy = "Deallocate"
        self.identity = self.permitted = True
        self.events: list[dict[str, Any]] = []
        self.approvals: list[list[str]] = []
        self.tokens: set[str] = set()
        self.power, self.provisioning = "running", "Succeeded"
        self.ends_as = "deallocated"
        self.faults: dict[str, list[Answer]] = {}
        self.always: dict[str, Answer] = {}
        self.silent_s = 0.0
        self.calls: list[tuple[str, str]] = []
        self.asked_at: list[float] = []
        self._servers = [_serve(self._metadata), _serve(self._management, folder)]
        self.metadata = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.management = f"https://localhost:{self._servers[1].server_port}"
        self.environment = {
            "CLOUDRUN_AZURE_METADATA_ENDPOINT": self.metadata,
            "CLOUDRUN_AZURE_ENDPOINT": self.management,
            "SSL_CERT_FILE": str(folder / "ca.pem"),
        }

    def schedule(
        self, kind: str, *, in_s: float | None = 30, status: str = "Scheduled", name: str = NAME
    ) -> dict[str, Any]:
        """An event as Azure words it; without in_s one that does not say when."""
        event = {
            "EventId": str(uuid.uuid4()).upper(),
            "EventStatus": status,
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": [name],
            "NotBefore": "" if in_s is None else http_date(time.time() + in_s),
            "Description": "",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        self.events.append(event)
        return event

    def count(self, path: str, method: str = "GET") -> int:
        return self.calls.count((method, path))

    def orders(self) -> int:
        """How often the machine's deallocation was asked for."""
        return self.count(f"{ID}/deallocate", "POST")

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # --- the metadata service ------------------------------------------------------------

    def _metadata(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        where, query = _split(path)
        if headers.get("Metadata") != "true" or headers.get("X-Forwarded-For"):
            return _json(400, {"error": "Bad request. Required metadata header not specified"})
        if where not in VERSIONS or query.get("api-version") != VERSIONS[where]:
            return _json(400, {"error": "Bad request. api-version is invalid or was not specified"})
        if where == EVENTS:
            time.sleep(self.silent_s)
            return self._approve(json.loads(body)) if method == "POST" else self._list()
        if where == COMPUTE:
            return _json(200, {"name": NAME, "resourceId": ID, "evictionPolicy": self.policy})
        if not self.identity or query.get("resource") != "https://management.azure.com/":
            return _json(400, {"error": "invalid_request", "error_description": "Identity not found"})
        token = f"token-{uuid.uuid4()}"
        self.tokens.add(token)
        return _json(200, {"access_token": token, "token_type": "Bearer"})

    def _list(self) -> Answer:
        return _json(200, {"DocumentIncarnation": len(self.approvals), "Events": self.events})

    def _approve(self, wanted: dict[str, Any]) -> Answer:
        numbers = [one["EventId"] for one in wanted["StartRequests"]]
        scheduled = {one["EventId"]: one for one in self.events if one["EventStatus"] == "Scheduled"}
        if not set(numbers) <= set(scheduled):
            return _json(400, {"error": "no such event is scheduled"})
        self.approvals.append(numbers)
        for number in numbers:
            scheduled[number].update(EventStatus="Started", NotBefore="")
        return 200, b"", {}

    # --- the management endpoint ---------------------------------------------------------

    def _management(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        where, query = _split(path)
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _refusal(401, "ExpiredAuthenticationToken")
        if query.get("api-version") != "2024-07-01":
            return _refusal(400, "MissingApiVersionParameter")
        if (method, where) == ("POST", f"{ID}/deallocate"):
            if not self.permitted:
                return _refusal(403, "AuthorizationFailed")
            self.power, self.provisioning = "deallocating", "Updating"
            return 202, b"", {}
        if (method, where, query.get("$expand")) == ("GET", ID, "instanceView"):
            return self._show()
        return _refusal(404, "ResourceNotFound")

    def _show(self) -> Answer:
        """The machine; what is under way has come to its end by the next question."""
        codes = [f"ProvisioningState/{self.provisioning.lower()}", f"PowerState/{self.power}"]
        view = {"statuses": [{"code": code} for code in codes]}
        shown = {"id": ID, "properties": {"provisioningState": self.provisioning, "instanceView": view}}
        if self.power == "deallocating" and self.ends_as:
            self.power = self.ends_as
            self.provisioning = "Succeeded" if self.ends_as == "deallocated" else "Failed"
            self.ends_as = "deallocated"
        return _json(200, shown)

    def _respond(self, act: Any, method: str, path: str, headers: Any, body: bytes) -> Answer:
        where = _split(path)[0]
        self.calls.append((method, where))
        self.asked_at.append(time.monotonic())
        key = "POST " + where if method == "POST" and where == EVENTS else where
        if self.faults.get(key):
            return self.faults[key].pop(0)
        answer: Answer = self.always[key] if key in self.always else act(method, path, headers, body)
        return answer


def http_date(when: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(when))


def _split(path: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(path)
    return unquote(parts.path), {name: values[0] for name, values in parse_qs(parts.query).items()}


def _json(status: int, value: object) -> Answer:
    return status, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _refusal(status: int, code: str) -> Answer:
    return _json(status, {"error": {"code": code, "message": "does not have authorization"}})


def _serve(act: Any, folder: Path | None = None) -> ThreadingHTTPServer:
    """A server in threads; with a folder one of TLS, whose authority it writes there."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = act.__self__._respond(act, self.command, self.path, self.headers, body)
            status, content, headers = answer
            if not status:
                self.wfile.write(content)  # as when the network fails, or somebody else answers
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815  # http.server's own names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if folder is not None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that trust us not
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
