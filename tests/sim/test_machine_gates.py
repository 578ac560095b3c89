"""What a rehearsal machine of either kind reaches outside of itself: the services that it was let reach."""

from __future__ import annotations

import socketserver
import threading
from pathlib import Path

import pytest
from machine_help import Rehearsal, need

ASK = (
    'python3 -c "import socket, sys; s = socket.create_connection((\\"localhost\\", {port})); '
    's.sendall(b\\"x\\" * 300000 + b\\"\\n\\"); print(s.makefile().readline().strip())"'
)


class Counter(socketserver.StreamRequestHandler):
    """Says how long the line was that came."""

    def handle(self) -> None:
        self.wfile.write(b"%d\n" % len(self.rfile.readline()))


@pytest.mark.parametrize("kind", ["namespace", "embedded"])
def test_a_service_that_it_may_reach_answers_and_no_other(kind: str, tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, need(kind))
    try:
        with (
            socketserver.ThreadingTCPServer(("127.0.0.1", 0), Counter) as let,
            socketserver.ThreadingTCPServer(("127.0.0.1", 0), Counter) as other,
        ):
            for server in (let, other):
                threading.Thread(target=server.serve_forever, daemon=True).start()
            rehearsal.host.let_reach(f"http://localhost:{let.server_address[1]}/")
            client = rehearsal.boot()
            for _ in range(2):
                assert client.run(ASK.format(port=let.server_address[1])) == "300001"
            if kind == "namespace":  # an embedded machine shares this computer's network
                assert "refused" in client.run(
                    ASK.format(port=other.server_address[1]) + " 2>&1", check=False
                )
            for server in (let, other):
                server.shutdown()
    finally:
        rehearsal.host.close()
