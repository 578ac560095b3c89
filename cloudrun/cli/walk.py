"""What submit, attach and restart share: watch a run to its end and tell how it went."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cloudrun.cli import render
from cloudrun.cli.run_view import ending_lines
from cloudrun.cli.shapes import run_shape
from cloudrun.cli.watch import Watcher
from cloudrun.client import Client
from cloudrun.errors import CloudrunError, Interrupted, MachineError, RunFailed
from cloudrun.models import Run, RunState

Walk = Callable[[Watcher], Run]


def walk(client: Client, step: Walk, *, known: Run | None = None, job: str = "", as_json: bool) -> int:
    """Take the step that walks or watches a run, then show its end. `known`: the run, if there is one yet.

    Raises RunFailed or MachineError for a run that did not succeed, Interrupted on Ctrl-C.
    """
    watcher = Watcher(log_to_stderr=as_json)
    try:
        run = step(watcher)
    except KeyboardInterrupt:
        raise interrupted(watcher.run or known) from None
    finally:
        watcher.close()
    if as_json:
        render.as_json(run_shape(run, attempts=len(client.attempts(run.id))))
    else:
        _tell(client, run, job or run.job)
    if run.state.final and run.state is not RunState.SUCCEEDED:
        raise failure(run)
    return 0


def interrupted(run: Run | None) -> Interrupted:
    """Ctrl-C: what goes on, and how to come back to it or end it."""
    if run is None or run.state.final:
        return Interrupted("interrupted")
    return Interrupted(
        f"no longer watching; the run {run.id} goes on",
        hint=f"cloudrun attach {run.id} comes back to it, cloudrun cancel {run.id} ends it",
    )


def failure(run: Run) -> CloudrunError:
    """The error of a run that ended without success; its exit code is the command's."""
    code = f" (exit code {run.exit_code})" if run.exit_code and run.state is RunState.FAILED else ""
    why = f": {run.message}" if run.message not in ("", run.state.value) else ""
    kind = MachineError if run.state is RunState.LOST else RunFailed
    return kind(f"run {run.id} {_WORDS[run.state]}{code}{why}", hint=f"cloudrun logs {run.id} shows why")


_WORDS = {
    RunState.FAILED: "failed",
    RunState.CANCELLED: "was cancelled",
    RunState.TIMED_OUT: "ran out of time",
    RunState.LOST: "was lost with its machine",
}


def _tell(client: Client, run: Run, job: str) -> None:
    if not run.state.final:
        render.data(run.id)
        render.say(f"it goes on without this terminal; watch it with: cloudrun attach {run.id}")
        return
    files, outputs = client.outputs(run.id), client.files(run.id).outputs
    render.lines(ending_lines(run, files, outputs, job=job, now=datetime.now(UTC)))
