"""The double's own certificate authority, and the server that answers in its name.

A server of our own, because those at hand close a connection after each answer: over https that makes
every call pay for a handshake, which Azure's callers do not.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import certifi
import trustme

LOOPBACK = "127.0.0.1"
CA_FILE = "ca.pem"
SOCKET = "cloudrun.socket"  # in the environment of a call: the connection that it came over

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class HttpsServer(ThreadingHTTPServer):
    """Serves a WSGI application over https with connections that stay open, a thread for each.

    Handshakes are done by the connection's own thread: a client that dawdles holds up nobody else.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, app: Application, port: int, folder: Path) -> None:
        """Port 0: any free one. The authority to trust is written to folder/ca.pem."""
        super().__init__((LOOPBACK, port), _Handler)
        self.app = app
        self._lines: set[socket.socket] = set()
        self._lines_lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = _context(folder).wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lines_lock:
            self._lines.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lines_lock:
            self._lines.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening, and cut the connections that are open."""
        super().server_close()
        with self._lines_lock:
            lines, self._lines = list(self._lines), set()
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is no error of ours; the application logs its own."""


class _Handler(BaseHTTPRequestHandler):
    """One connection. Prints nothing: calls are recorded."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpsServer

    def handle_call(self) -> None:
        said: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            said["status"], said["headers"] = status, headers

        content = b"".join(self.server.app(self._environ(), start_response))
        number, _, phrase = said["status"].partition(" ")
        self.send_response(int(number), phrase)
        for name, value in said["headers"]:
            self.send_header(name, value)
        head = io.BytesIO()
        wire, self.wfile = self.wfile, head
        self.end_headers()
        self.wfile = wire
        self.wfile.write(head.getvalue() + (b"" if self.command == "HEAD" else content))  # in one piece

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = do_HEAD = handle_call  # noqa: N815 - http.server's

    def _environ(self) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote(path),
            "RAW_URI": self.path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": self.headers.get("content-length", ""),
            "REMOTE_ADDR": self.client_address[0],
            "wsgi.input": self.rfile,
            SOCKET: self.connection,
        }
        for name, value in self.headers.items():
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        return environ

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def _context(folder: Path) -> ssl.SSLContext:
    """Of a fresh authority: its key is nowhere but in this process. Beside it in the file stand those that
    the world trusts: a shell that uses a rehearsal goes on to reach the rest of the network."""
    authority = trustme.CA()
    known = Path(certifi.where()).read_bytes()
    (folder / CA_FILE).write_bytes(authority.cert_pem.bytes() + b"\n" + known)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", LOOPBACK).configure_cert(context)
    return context
