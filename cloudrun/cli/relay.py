"""A remote command between our own stdin and stdout: streamed both ways, ended with its exit code."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from cloudrun.cli import render
from cloudrun.cli.logtext import LogText
from cloudrun.errors import RemoteError
from cloudrun.remote.shell import Shell, Stream

CHUNK = 1 << 16


def run(shell: Shell, line: str) -> int:
    """Run the line there (blocking) and return its exit code. On a terminal its output is made harmless.

    Raises ConnectFailed, HostKeyMismatch, ConnectionLost.
    """
    with shell.open(line) as stream:
        threading.Thread(target=_send, args=(stream,), daemon=True).start()
        text = LogText()
        plain = not sys.stdout.isatty()
        while chunk := stream.stdout.read1(CHUNK):  # type: ignore[attr-defined]  # a BufferedReader
            render.content(chunk) if plain else render.log(text.feed(chunk))
        render.log(text.close())
        result = stream.wait()
    if result.stderr:
        errors = LogText()
        render.log(errors.feed(result.stderr) + errors.close(), to_stderr=True)
    return result.exit_code


def _send(stream: Stream) -> None:
    """Our stdin, if something is piped in, to the command's; then its end."""
    with suppress(OSError, ValueError, RemoteError):  # the command may end before it has read everything
        if not sys.stdin.isatty():
            while chunk := os.read(sys.stdin.fileno(), CHUNK):
                stream.stdin.write(chunk)
                stream.stdin.flush()
        stream.close_stdin()
