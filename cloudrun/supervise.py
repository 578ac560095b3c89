"""Who walks a run: this process, or a small one of our own that outlives the terminal.

One process at a time walks a run (the kernel's lock on the run's folder says which). All
others watch. A run that nobody walks is taken up by the next command that looks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from cloudrun import execute
from cloudrun.context import Context
from cloudrun.errors import Interrupted
from cloudrun.events import LogData, StageEnded, StateChanged
from cloudrun.locks import Hold
from cloudrun.models import Plan, Run
from cloudrun.names import new_run_id
from cloudrun.runfiles import RunFiles

WATCH_POLL_S = 0.01  # a line reaches a watching terminal within this; costs about 1 % of a core


def submit(ctx: Context, plan: Plan, *, detach: bool) -> Run:
    """Record the plan and walk it (blocking), or leave the walking to a supervisor."""
    run_id = new_run_id()
    with RunFiles(ctx.settings, run_id).walking() as hold:
        run = execute.record(ctx, plan, run_id)
        return hand_over(ctx, run, hold) if detach else walk_here(ctx, run, hold)


def attach(ctx: Context, run: Run) -> Run:
    """Show what was logged, then walk on, or watch while another process walks (blocking)."""
    log = _LogTail(RunFiles(ctx.settings, run.id))
    for data in log.read():
        ctx.on_event(LogData(data))
    while not run.state.final:
        with RunFiles(ctx.settings, run.id).walking() as hold:
            if hold:
                return walk_here(ctx, ctx.store.find_run(run.id), hold)
        run = _watch(ctx, run, log)
    for data in log.read():
        ctx.on_event(LogData(data))
    return run


def settle(ctx: Context, run: Run) -> Run:
    """Walk or wait until the run is final and nobody walks it (blocking). Shows nothing of its log."""
    files = RunFiles(ctx.settings, run.id)
    while True:
        with files.walking() as hold:
            run = ctx.store.find_run(run.id)
            if hold:
                return run if run.state.final else execute.walk(ctx, run)
        time.sleep(0.05)


def hand_over(ctx: Context, run: Run, hold: Hold) -> Run:
    """Start a supervisor and pass it our hold on the run: no moment is unattended. Returns at once."""
    files = RunFiles(ctx.settings, run.id)
    with files.supervisor_log.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "cloudrun.supervisor", run.id, str(hold.fd)],
            pass_fds=(hold.fd,),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **ctx.settings.as_environ()},
            cwd=files.folder,
            start_new_session=True,
        )
    assert supervisor.stdin is not None  # noqa: S101  # stdin=PIPE
    supervisor.stdin.write(json.dumps(dict(ctx.secrets)).encode())
    supervisor.stdin.close()
    supervisor.returncode = 0  # it outlives us: nobody waits for it, and nobody warns
    return ctx.store.update_run(run.id, detached=True, supervisor_pid=supervisor.pid)


def take_up(ctx: Context, run: Run) -> bool:
    """Give the run a supervisor if nobody walks it; was there need?"""
    with RunFiles(ctx.settings, run.id).walking() as hold:
        if not hold or ctx.store.find_run(run.id).state.final:
            return False
        hand_over(ctx, run, hold)
    return True


def read_log(files: RunFiles) -> Iterator[bytes]:
    """The run's log at home as it is now."""
    return _LogTail(files).read()


def follow_log(ctx: Context, run: Run) -> Iterator[bytes]:
    """The run's log at home as it grows, until the run is final (blocking)."""
    log = _LogTail(RunFiles(ctx.settings, run.id))
    while True:
        final = ctx.store.find_run(run.id).state.final  # asked before reading: the last bytes are not missed
        yield from log.read()
        if final:
            return
        log.wait()


def walk_here(ctx: Context, run: Run, hold: Hold) -> Run:
    """Walk in this process; a Ctrl-C leaves the run to a supervisor, so that nothing stays unattended."""
    try:
        return execute.walk(ctx, run)
    except KeyboardInterrupt:
        hand_over(ctx, run, hold)
    raise Interrupted(
        f"no longer watching; {run.id} goes on", hint=f"cloudrun attach {run.id}, or cloudrun cancel {run.id}"
    )


def _watch(ctx: Context, run: Run, log: _LogTail) -> Run:
    """Pass on what another process brings home, until it ends or stops walking."""
    seen = {(number, stage) for number, stage, _at, _seconds in ctx.store.list_stages(run.id)}
    files = RunFiles(ctx.settings, run.id)
    while True:
        walked = files.walked()
        for data in log.read():
            ctx.on_event(LogData(data))
        for number, stage, _at, seconds in ctx.store.list_stages(run.id):
            if (number, stage) not in seen:
                seen.add((number, stage))
                ctx.on_event(StageEnded(stage, seconds, number))
        latest = ctx.store.find_run(run.id)
        if latest != run:
            ctx.on_event(StateChanged(latest))
        run = latest
        if run.state.final or not walked:
            return run
        log.wait()


class _LogTail:
    """Reads a run's logs at home, attempt after attempt, from where it stopped last."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._offsets: dict[str, int] = {}

    def read(self) -> Iterator[bytes]:
        for path in self._files.logs():
            with path.open("rb") as log:
                log.seek(self._offsets.get(path.name, 0))
                while data := log.read(1 << 16):
                    self._offsets[path.name] = log.tell()
                    yield data

    def wait(self, timeout_s: float = 0.25) -> None:
        """Until some log grew, at most timeout_s (the caller looks at the run's state then)."""
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            if any(path.stat().st_size > self._offsets.get(path.name, 0) for path in self._files.logs()):
                return
            time.sleep(WATCH_POLL_S)
