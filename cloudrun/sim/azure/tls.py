"""The double's own certificate authority, and the server that answers in its name."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import trustme
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

LOOPBACK = "127.0.0.1"
CA_FILE = "ca.pem"


def make_https_server(app: Any, port: int, folder: Path) -> BaseWSGIServer:
    """A server on a loopback port (0: any free one), with the authority to trust in folder/ca.pem.

    Handshakes are done by the connection's own thread: a client that dawdles holds up nobody else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / CA_FILE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", LOOPBACK).configure_cert(context)
    server = make_server(LOOPBACK, port, app, threaded=True, request_handler=_QuietHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.ssl_context = context  # its handlers read from it that they speak https
    return server


class _QuietHandler(WSGIRequestHandler):
    """Keeps connections open as clients like it, and prints nothing: calls are recorded."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""
