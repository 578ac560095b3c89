"""Runs on a machine: start, follow, signal, look, and the guard. All blocking.

A run goes on without us; every function may be called again after a lost connection.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cloudrun.errors import TransferFailed
from cloudrun.guard import policy
from cloudrun.models import Guard
from cloudrun.remote import agentlink
from cloudrun.remote.shell import DEAD_PEER_S, Shell

DEFAULT_GRACE_S = 30.0


class ProcessState(StrEnum):
    """Where a run stands on its machine; absent: the machine does not know it."""

    ABSENT = "absent"
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


_LAST = (ProcessState.ENDED, ProcessState.ABSENT)


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What a machine needs to run one attempt. env may hold secrets: it travels over stdin alone and
    rests on the machine, readable by its owner only, no longer than until the process has started;
    with `resume` and no `secrets`, until it has ended."""

    key: str  # "<run id>.<attempt number>"
    bundle: str  # digest of a pushed bundle
    command: tuple[str, ...]
    outputs: str = "outputs"
    env: Mapping[str, str] = field(default_factory=dict)
    max_seconds: float | None = None  # from the start of the process, suspended time included
    grace_s: float = DEFAULT_GRACE_S  # between SIGTERM and SIGKILL
    gpus: int = 0  # 0 or all of the machine's: all; fewer: CUDA_VISIBLE_DEVICES is set
    resume_from: str = ""  # machine path
    # Folder below the outputs that the job resumes from; "" = it does not. With it the run goes on by itself
    # on a machine that was stopped or went down and is back: it was interrupted, exited 75, or was killed.
    resume: str = ""
    secrets: tuple[str, ...] = ()  # names in env that may not rest on the disk: then `resume` is not heeded
    labels: Mapping[str, str] = field(default_factory=dict)  # stored readable, for adopt


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What the machine says of a run; times are corrected to this computer's clock.

    reason: "" | timed-out | cancelled | preempted | deadline | idle | killed | cannot-start. It is told with
    ENDED only: a run that was interrupted and goes on by itself is QUEUED again.
    """

    state: ProcessState
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    queue_position: int = 0  # runs that must end first
    log_bytes: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of the log, at their offset in it."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StateChange:
    status: ProcessStatus


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the job's metrics.jsonl; `offset` is where the next one begins."""

    line: dict[str, Any]
    offset: int = 0


def start(shell: Shell, spec: ProcessSpec) -> ProcessStatus:
    """Queue the run; it starts when its turn comes. A second call for the same key changes nothing."""
    request = {name: getattr(spec, name) for name in ProcessSpec.__dataclass_fields__}
    request |= {"env": dict(spec.env), "labels": dict(spec.labels)}
    request |= {"command": list(spec.command), "secrets": list(spec.secrets)}
    return read_status(agentlink.call(shell, "start", request))


def follow(
    shell: Shell, key: str, *, log_offset: int, metric_offset: int = 0
) -> Iterator[LogChunk | StateChange | Metric]:
    """Log bytes from log_offset, state changes and metrics as they come; the last item says ENDED
    (or ABSENT, where the machine does not know the run).

    The first item of every call is the state of now, or log bytes. Raises ConnectionLost when the
    line died or was silent for DEAD_PEER_S: call again with the offset after the last byte received.
    metrics.jsonl written anew (a resumed job) begins again at its first line.
    """
    request = {"key": key, "log_offset": log_offset, "metric_offset": metric_offset}
    with agentlink.open_verb(shell, "follow", prologue=agentlink.pack(request)) as link:
        expected = log_offset
        watchdog = _Watchdog(link, DEAD_PEER_S)
        try:
            while True:
                kind, payload = link.read_frame()
                watchdog.feed()
                item = _item(kind, payload)
                if isinstance(item, LogChunk):
                    if item.offset != expected:
                        raise TransferFailed("the log's pieces do not join", hint="attach to the run again")
                    expected += len(item.data)
                if item is not None:
                    yield item
                if isinstance(item, StateChange) and item.status.state in _LAST:
                    return
        finally:
            watchdog.stop()


def signal(
    shell: Shell, key: str, *, grace_s: float = DEFAULT_GRACE_S, reason: str = "cancelled"
) -> ProcessStatus:
    """SIGTERM, and SIGKILL after grace_s; takes a queued run out of the queue.

    Does not wait for a running job to end (half a second at most): follow or status tell. Idempotent.
    """
    return read_status(agentlink.call(shell, "signal", {"key": key, "grace_s": grace_s, "reason": reason}))


def status(shell: Shell, key: str) -> ProcessStatus:
    """How the run stands now; ABSENT where the machine does not know it."""
    return read_status(agentlink.call(shell, "status", {"key": key}))


def list_runs(shell: Shell) -> dict[str, ProcessStatus]:
    """Every run that the machine knows, by key."""
    answer = agentlink.call(shell, "list", {})
    if not isinstance(answer, dict):
        raise _unreadable()
    return {key: read_status(said) for key, said in answer.items()}


def read_spec(shell: Shell, key: str) -> Mapping[str, object]:
    """What a run was started with: command, outputs, bundle, labels and limits, never its environment."""
    answer = agentlink.call(shell, "spec", {"key": key})
    if not isinstance(answer, dict):
        raise _unreadable()
    return answer


def clean_runs(
    shell: Shell, runs: Sequence[tuple[str, bool]], *, part: str = "", remove: bool
) -> dict[str, tuple[int, int]]:
    """Bytes and files that lie on the machine of runs that have ended there, or that went, by key; one
    command for all. Each key with whether its checkpoint stays. part: "" (all), outputs, checkpoints, code.
    Idempotent; interrupted, the next call goes on."""
    request = {"runs": [list(run) for run in runs], "part": part, "remove": remove}
    answer = agentlink.call(shell, "clean", request, part="cleaning")
    try:
        return {str(key): (int(size), int(files)) for key, (size, files) in answer.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise _unreadable() from error


def arm_guard(shell: Shell, guard: Guard, release: tuple[str, ...], *, notices: str = "") -> None:
    """Replace the machine's policy, and leave a guard process there if none lives.

    `notices` as in guard.policy: "" keeps what the machine's guard asks already.
    """
    agentlink.call(shell, "guard", {"policy": policy(guard, release, notices=notices)})


def probe(shell: Shell, frameworks: tuple[str, ...]) -> dict[str, str]:
    """What is really there: python, kernel, cpu_count, memory_bytes, disk_free_bytes, driver, cuda, gpu,
    gpu_count, gpu_memory_mib, and the version of each framework; "" = not there."""
    return _facts(agentlink.call(shell, "probe", {"frameworks": list(frameworks)}))


def probe_script(frameworks: Sequence[str]) -> str:
    """Shell text that prints what `probe` asks as one word, for `read_probe`; nothing where the agent is not
    there: push it then."""
    request = base64.b64encode(agentlink.pack({"frameworks": list(frameworks)})).decode()
    verb = agentlink.launch_command("probe")
    return f"echo {request} | base64 -d | ( {verb} ) 2>/dev/null | base64 | tr -d '\\n'"


def read_probe(word: str) -> dict[str, str]:
    """As `probe`, of what its script printed. Raises RemoteError for what cannot be read."""
    try:
        return _facts(agentlink.answer_in(base64.b64decode(word)))
    except binascii.Error as error:
        raise _unreadable() from error


def _facts(answer: Any) -> dict[str, str]:
    if not isinstance(answer, dict):
        raise _unreadable()
    return {str(name): str(value) for name, value in answer.items()}


def _item(kind: bytes, payload: bytes) -> LogChunk | StateChange | Metric | None:
    if kind == b"L" and len(payload) > 8:
        return LogChunk(int.from_bytes(payload[:8], "big"), payload[8:])
    if kind == b"M" and len(payload) > 8:
        return _metric(int.from_bytes(payload[:8], "big"), payload[8:])
    if kind == b"S":
        try:
            return StateChange(read_status(json.loads(payload)))
        except ValueError as error:
            raise _unreadable() from error
    if kind == b"H":
        return None
    raise _unreadable()


def _metric(offset: int, line: bytes) -> Metric | None:
    """A line that is no JSON object is the job's own affair, and stays in its file."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return Metric(values, offset) if isinstance(values, dict) else None


def read_status(said: Any) -> ProcessStatus:
    """What an agent said of a run, checked. Raises TransferFailed."""
    try:
        return ProcessStatus(
            state=ProcessState(said["state"]),
            exit_code=None if said["exit_code"] is None else int(said["exit_code"]),
            reason=str(said["reason"]),
            message=str(said["message"]),
            queue_position=int(said["queue_position"]),
            log_bytes=int(said["log_bytes"]),
            started_at=_time(said["started_at"]),
            ended_at=_time(said["ended_at"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise _unreadable() from error


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _unreadable() -> TransferFailed:
    return TransferFailed(
        "the machine's answer cannot be read", hint="do not trust that machine; terminate it"
    )


class _Watchdog:
    """Closes the link when it was not fed for `seconds`: the blocked read then ends as a lost connection."""

    def __init__(self, link: agentlink.Link, seconds: float) -> None:
        self._link = link
        self._seconds = seconds
        self._fed = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._watch, name="cloudrun-watchdog", daemon=True)
        self._thread.start()

    def feed(self) -> None:
        self._fed.set()

    def stop(self) -> None:
        self._stopped = True
        self._fed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped:
            if not self._fed.wait(self._seconds):
                self._link.close()
                return
            self._fed.clear()
