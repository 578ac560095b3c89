"""A metadata service as EC2's: version 2 with tokens, and a spot notice when there is one."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN_HEADER = "X-aws-ec2-metadata-token"


class LittleImds:
    """On a loopback address of its own. `answer` replaces what it says of notices: (status, body)."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.issued = 0
        self.asked = 0
        self.refused = 0
        self.answer: tuple[int, bytes] = (404, b"")
        self.token_status = 200
        self.silent_s = 0.0
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                ttl = int(self.headers.get(f"{TOKEN_HEADER}-ttl-seconds", 0))
                if self.path != "/latest/api/token" or not 0 < ttl <= 21600:
                    self.reply(400, b"")
                    return
                service.issued += 1
                token = f"token-{service.issued}"
                service.tokens.add(token)
                self.reply(service.token_status, token.encode())

            def do_GET(self) -> None:
                if self.headers.get(TOKEN_HEADER) not in service.tokens:
                    service.refused += 1
                    self.reply(401, b"")
                    return
                assert self.path == "/latest/meta-data/spot/instance-action"
                service.asked += 1
                time.sleep(service.silent_s)
                self.reply(*service.answer)

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def announce(self, action: str, *, in_s: float = 120) -> str:
        """The notice as EC2 words it; returns its time."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + in_s))
        self.answer = (200, json.dumps({"action": action, "time": when}).encode())
        return when

    def withdraw(self) -> None:
        self.answer = (404, b"")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
