"""Talking to the agent on a machine: pushed by its hash on first use, called by verb, answering in frames.

A verb is one remote command. Requests go over stdin (length, zlib, JSON), so nothing of them
stands in a command line; answers come as frames (kind, length, payload) after a magic line,
so that whatever a login script prints is skipped. All blocking.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import struct
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from cloudrun.errors import ConnectionLost, RemoteError, TransferFailed
from cloudrun.models import Result
from cloudrun.remote.shell import Shell, Stream

MAGIC = b"\0cloudrun agent 1\n"
FRAME = struct.Struct("!cI")
LENGTH = struct.Struct("!I")
MAX_BANNER_BYTES = 64 * 1024  # of a login script, before the magic line
MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 512 * 1024 * 1024  # of one answer, unpacked: a million outputs
CALL_TIMEOUT_S = 120.0  # of a verb that answers once: no verb works longer without a word
NO_AGENT = 97  # our command's exit code where the agent's file is missing
NO_PYTHON = 127

# The interpreter for every verb but `probe`: the system's own, isolated from the job's packages, starts fast.
_FAST = "P=/usr/bin/python3; [ -x $P ] || P=python3; exec $P -I -S"
_JOBS_OWN = "exec python3"
_LAUNCH = (
    'A="$HOME/.cloudrun"; [ -f "$A/{name}.py" ] || exit 97; {python} -c '
    "'import sys; sys.path[:] = [p for p in sys.path if p] + [sys.argv[1]]; "
    'sys.exit(__import__("{name}").main(sys.argv[2:]))\' "$A" {verb}'
)
_PUSH = (
    'umask 077; mkdir -p "$HOME/.cloudrun" && cd "$HOME/.cloudrun" && cat > {name}.$$ && '
    "[ $(wc -c < {name}.$$) -eq {size} ] && mv {name}.$$ {name}.py"
)

_HINTS = {
    "disk-full": "free space on the machine, or launch one with a bigger --disk-gb; what arrived stays there",
    "damaged": "run the same command again: the content is pushed anew",
    "no-bundle": "push the bundle first",
    "absent": "`cloudrun status` shows where the run is",
    "fetch": "does the machine reach that address? What arrived stays: the next try goes on from it",
    "checksum": "take the checksum from who publishes the file; if the file was changed, add it anew",
    "archive": "get the archive from a source that you trust, or add its files with cloudrun data upload",
}
_TRANSFER_KINDS = ("disk-full", "damaged", "no-bundle", "transfer", "fetch", "checksum", "archive")


def call(shell: Shell, verb: str, request: Mapping[str, object], *, part: str = "") -> Any:
    """Run one verb with one request and return its one answer. Raises what the agent says went wrong."""
    with open_verb(shell, verb, prologue=pack(request), part=part) as link:
        return link.read_json()


def open_verb(shell: Shell, verb: str, *, prologue: bytes = b"", part: str = "") -> Link:
    """Start a verb whose streams stay open, write `prologue` to it. Pushes the agent where it is missing.

    part: the file beside the agent that knows the verb; it, too, is pushed by its hash on first use.
    """
    for _ in range(2):
        stream = shell.open(launch_command(verb, part))
        try:
            if prologue:
                with contextlib.suppress(ConnectionLost):  # or it ended already, and says below why
                    _write(stream, prologue)
            if _skip_to_magic(stream.stdout):
                return Link(stream)
            result = _end(stream)
        except BaseException:
            stream.close()
            raise
        if result.exit_code != NO_AGENT:
            raise _no_answer(result)
        push_agent(shell)
        if part:
            _push(shell, part_name(part), part_source(part))
    raise RemoteError(
        "the agent did not stay on the machine", hint="look at ~/.cloudrun there, and at its free disk space"
    )


def answer_in(output: bytes) -> Any:
    """The one answer in all that a verb printed. Raises what the agent says went wrong, and TransferFailed
    where there is no whole answer."""
    frames = output.partition(MAGIC)[2]
    if len(frames) < FRAME.size:
        raise TransferFailed("the agent did not answer", hint="run the same command again")
    kind, size = FRAME.unpack_from(frames)
    payload = frames[FRAME.size : FRAME.size + size]
    if kind == b"E":
        raise _failure(payload)
    return _unpacked(kind, payload)


def push_agent(shell: Shell) -> None:
    """Put the agent's file on the machine. Whole or not at all; safe to repeat."""
    _push(shell, agent_name(), agent_source())


def _push(shell: Shell, name: str, source: bytes) -> None:
    command = _PUSH.format(name=name, size=len(source))
    result = shell.run(command, input=source, timeout_s=CALL_TIMEOUT_S, check=False)
    if not result:
        reason = result.stderr.decode("utf-8", "replace").strip() or f"exit code {result.exit_code}"
        raise TransferFailed(f"the agent could not be put on the machine: {reason}", hint=_HINTS["disk-full"])


def launch_command(verb: str, part: str = "") -> str:
    """The command line of a verb; exit code 97 says that the agent, or its part, is not there."""
    python = _JOBS_OWN if verb == "probe" else _FAST
    if not part:
        return _LAUNCH.format(name=agent_name(), python=python, verb=verb)
    launch = _LAUNCH.format(name=part_name(part), python=python, verb=f"{agent_name()} {verb}")
    return f'[ -f "$HOME/.cloudrun/{agent_name()}.py" ] || exit {NO_AGENT}; {launch}'


def pack(request: Mapping[str, object]) -> bytes:
    """A request as it travels; `now` lets the machine take its own clock's error out."""
    body = zlib.compress(json.dumps({**request, "now": time.time()}).encode("ascii"), 1)
    return LENGTH.pack(len(body)) + body


@functools.cache
def agent_source() -> bytes:
    return (Path(__file__).parent.parent / "agent" / "agent.py").read_bytes()


@functools.cache
def agent_name() -> str:
    return "agent-" + hashlib.sha256(agent_source()).hexdigest()[:16]


@functools.cache
def part_source(part: str) -> bytes:
    """A file beside the agent's, which is given the agent's name as its first argument."""
    return (Path(__file__).parent.parent / "agent" / f"{part}.py").read_bytes()


@functools.cache
def part_name(part: str) -> str:
    return f"{part}-" + hashlib.sha256(part_source(part)).hexdigest()[:16]


class Link:
    """One running verb: frames in, bytes out. Closing it drops the verb."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._stdout = stream.stdout

    def read_frame(self) -> tuple[bytes, bytes]:
        """The next frame as (kind, payload). Raises ConnectionLost at the end, and what an error says."""
        kind, size = FRAME.unpack(self.read(FRAME.size))
        if size > MAX_FRAME_BYTES:
            raise TransferFailed("the machine sent a frame of absurd size", hint="do not trust that machine")
        payload = self.read(size)
        if kind == b"E":
            raise _failure(payload)
        return kind, payload

    def read_json(self) -> Any:
        """The next answer, unpacked."""
        return _unpacked(*self.read_frame())

    def read(self, size: int) -> bytes:
        """Exactly size bytes. Raises ConnectionLost where they end early."""
        parts = []
        while size:
            try:
                part = self._stdout.read(min(size, 1 << 20))
            except (OSError, ValueError) as error:  # ValueError: the watchdog closed the file under us
                raise _lost() from error
            if not part:
                raise _lost()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        """Raises ConnectionLost when nobody reads any more."""
        _write(self._stream, data)

    def close(self) -> None:
        self._stream.close()

    def close_stdin(self) -> None:
        self._stream.close_stdin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unpacked(kind: bytes, payload: bytes) -> Any:
    if kind != b"Z":
        raise TransferFailed(
            f"the machine sent a {kind!r} frame instead of an answer", hint="do not trust that machine"
        )
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(payload, MAX_JSON_BYTES)
        return json.loads(text if unpacker.eof else b"")  # cut short, or of absurd size: no JSON
    except (zlib.error, ValueError, RecursionError) as error:
        raise TransferFailed(f"the machine's answer cannot be read: {error}", hint="try again") from error


def _write(stream: Stream, data: bytes) -> None:
    try:
        stream.stdin.write(data)
        stream.stdin.flush()
    except (OSError, ValueError) as error:
        raise _lost() from error


def _skip_to_magic(stdout: IO[bytes]) -> bool:
    """Read up to the magic line; False where the output ended without one."""
    seen = b""
    while not seen.endswith(MAGIC):
        if len(seen) > MAX_BANNER_BYTES:
            raise RemoteError(
                "the machine's login scripts print without end", hint="make them silent for commands over SSH"
            )
        # Never more than is missing: what follows belongs to the frames.
        part = stdout.read(_missing(seen))
        if not part:
            return False
        seen += part
    return True


def _missing(seen: bytes) -> int:
    """How many bytes the magic line still lacks at least."""
    for have in range(len(MAGIC) - 1, 0, -1):
        if seen.endswith(MAGIC[:have]):
            return len(MAGIC) - have
    return len(MAGIC)


def _end(stream: Stream) -> Result:
    stream.close_stdin()
    try:
        return stream.wait(CALL_TIMEOUT_S)
    finally:
        stream.close()


def _no_answer(result: Result) -> RemoteError:
    reason = result.stderr.decode("utf-8", "replace").strip().splitlines()
    if result.exit_code == NO_PYTHON:
        return RemoteError("the machine has no python3", hint="install Python 3.5 or newer there")
    return RemoteError(
        f"the agent did not start (exit code {result.exit_code}): {reason[-1] if reason else 'no message'}",
        hint="`cloudrun machines exec NAME python3 --version` shows whether Python works there",
    )


def _failure(payload: bytes) -> RemoteError:
    try:
        said = json.loads(payload)
        kind, message = str(said["kind"]), str(said["message"])
    except (ValueError, TypeError, KeyError):
        kind, message = "", "the machine failed without saying why"
    if kind in _TRANSFER_KINDS:
        return TransferFailed(
            f"the machine says: {message}", hint=_HINTS.get(kind, "run the same command again")
        )
    return RemoteError(
        f"the machine says: {message}", hint=_HINTS.get(kind, "look at ~/.cloudrun on the machine")
    )


def _lost() -> ConnectionLost:
    return ConnectionLost(
        "the connection to the machine was lost", hint="run the same command again: it goes on from there"
    )
