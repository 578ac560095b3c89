"""Stage 9: what a run says and makes comes home while it runs, over a line that may break at any time.

The log at home is appended only at its own size, which is the offset asked for: a cut
line repeats nothing and loses nothing. A broken line says nothing about the run; only the
provider's word about the machine, or the agent's about the process, does.
"""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import BinaryIO, Self

from cloudrun import access, machine_off, rent
from cloudrun.attempts import process_key
from cloudrun.capacity import REFUSALS, wait_for_capacity
from cloudrun.context import Context, now
from cloudrun.errors import CloudrunError, ConnectFailed, ConnectionLost, MachineError, Preempted
from cloudrun.events import LogData, MetricLine, Note
from cloudrun.models import EXIT_RESUME_ME, Attempt, Machine, MachineState, Outcome, Run, RunState
from cloudrun.remote import process, transfer
from cloudrun.remote.shell import Shell

RECONNECT_FOR_S = 900.0  # then the watcher gives up; the run itself goes on
CHECKPOINT_PULL_S = 60.0  # a preemption without notice costs at most this much plus the job's own interval
CANCEL_POLL_S = 0.5
STATE_OF = {process.ProcessState.QUEUED: RunState.QUEUED, process.ProcessState.RUNNING: RunState.RUNNING}
OUTCOME_OF = {
    "cancelled": Outcome.CANCELLED,
    "timed-out": Outcome.TIMED_OUT,
    "deadline": Outcome.TIMED_OUT,
    "idle": Outcome.TIMED_OUT,
}


def follow_process(
    ctx: Context, run: Run, attempt: Attempt, machine: Machine, shell: Shell, *, checkpoint: str
) -> process.ProcessStatus:
    """Follow until the process ended (blocking, hours). Safe to call again at any point.

    Raises Preempted, MachineError when the machine is gone, and the connection's own error
    when it could not be had again for RECONNECT_FOR_S.
    """
    with ctx.files(run).log(attempt.number).open("ab") as log, _Side(ctx, run, attempt, checkpoint) as side:
        listener = _Listener(ctx, run, attempt, log)
        while True:
            side.shell = shell
            with closing(shell):
                try:
                    return listener.listen(shell)
                except (ConnectionLost, ConnectFailed) as error:
                    loss = error
            ctx.on_event(Note(f"{loss.message}; the run goes on, connecting again"))
            machine, shell = _reconnect(ctx, machine, loss)


def take_metrics(ctx: Context, run: Run, attempt: Attempt) -> None:
    """The job's metric as the file at home has it, where nobody listened to the end."""
    path = ctx.files(run).outputs / "metrics.jsonl"
    with ctx.files(run).log(attempt.number).open("ab") as log:
        listener = _Listener(ctx, ctx.store.find_run(run.id), attempt, log)
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            listener.take_line(line)


def end_of(ctx: Context, run: Run, attempt: Attempt, status: process.ProcessStatus) -> Attempt:
    """Store how the attempt ended. Raises Preempted when the machine was being taken."""
    if status.state is process.ProcessState.ABSENT:
        raise MachineError(
            f"{attempt.machine} knows nothing of the run any more", hint=f"cloudrun restart {run.id}"
        )
    if status.reason == "preempted":
        raise Preempted(f"{attempt.machine} is being taken back by {attempt.offer.provider}")
    if ctx.store.find_run(run.id).started_at is None and status.started_at is not None:
        ctx.store.update_run(run.id, started_at=status.started_at)  # over before anybody saw it run
    outcome = OUTCOME_OF.get(status.reason) or (
        Outcome.SUCCEEDED if status.exit_code == 0 else Outcome.FAILED
    )
    return ctx.store.update_attempt(
        run.id,
        attempt.number,
        outcome=outcome,
        exit_code=status.exit_code,
        ended_at=status.ended_at or now(),
        message=_why(run, outcome, status),
    )


def stop_process(ctx: Context, run: Run, attempt: Attempt) -> Attempt:
    """The user cancelled: end the process where there is one, and store the outcome."""
    status = None
    machine = ctx.store.get_machine(attempt.machine)
    if attempt.started_at is not None and machine is not None:
        machine = rent.wake(ctx, machine)
        if machine.state is MachineState.RUNNING:
            machine, shell = access.await_ready(ctx, machine)
            status = process.signal(shell, process_key(attempt), reason="cancelled")
            if status.state is process.ProcessState.RUNNING:
                status = follow_process(ctx, run, attempt, machine, shell, checkpoint="")
    if status is not None and status.state is process.ProcessState.ENDED:
        return end_of(ctx, run, attempt, status)
    return ctx.store.update_attempt(
        run.id,
        attempt.number,
        outcome=Outcome.CANCELLED,
        ended_at=now(),
        message="cancelled before it started",
    )


def _reconnect(ctx: Context, machine: Machine, loss: CloudrunError) -> tuple[Machine, Shell]:
    """The way back, as soon as there is one. A machine that is gone raises what it is gone for."""
    give_up_at = time.monotonic() + RECONNECT_FOR_S
    wait_s, started = 0.1, False
    while True:
        machine = rent.wake(ctx, machine)
        if machine_off.waits_for_start(machine):
            machine = _start_evicted(ctx, machine, again=started)
            started = True
            give_up_at = time.monotonic() + RECONNECT_FOR_S
        machine_off.refuse_ended(machine)
        if machine_off.is_paused(machine):
            machine = _await_comeback(ctx, machine)
            give_up_at = time.monotonic() + RECONNECT_FOR_S
        shell = _try_shell(ctx, machine)
        if shell is not None:
            return machine, shell
        if time.monotonic() > give_up_at:
            raise loss
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.5, ctx.settings.poll_s)


def _try_shell(ctx: Context, machine: Machine) -> Shell | None:
    try:
        return access.knock(ctx, machine) if machine.address else None
    except ConnectionLost:
        return None


def _await_comeback(ctx: Context, machine: Machine) -> Machine:
    """Its provider stopped the machine and starts it again when it has capacity (blocking, hours). The
    run goes on there by itself, whether anybody waits here or not."""
    ctx.on_event(Note(f"{machine.provider} stopped {machine.name}; it starts again when there is capacity"))
    while machine_off.is_paused(machine):
        time.sleep(ctx.settings.poll_s)
        machine = rent.refresh(ctx, machine)
    machine_off.refuse_ended(machine)
    return machine


def _start_evicted(ctx: Context, machine: Machine, *, again: bool) -> Machine:
    """Its provider took the machine and kept its disk: it is asked to start it again (blocking, hours).

    A machine of the run's own is asked for once: without capacity there, the run goes on elsewhere. `again`:
    it was started, and taken once more before it answered.
    """
    if machine.run_owned and again:
        raise Preempted(f"{machine.provider} has no room for {machine.name} now")
    ctx.on_event(Note(f"{machine.provider} took {machine.name} and kept its disk; starting it again"))
    for rounds in itertools.count():
        while dict(machine.detail).get("state") == "stopping":
            time.sleep(access.first_wait_s(ctx, machine))
            machine = rent.refresh(ctx, machine)
        if not machine_off.waits_for_start(machine):
            return machine  # somebody else has started it, or ended it
        try:
            return rent.start_again(ctx, machine)
        except REFUSALS as refusal:
            if machine.run_owned:
                raise Preempted(f"{machine.name} was taken back: {refusal.message}") from refusal
            wait_for_capacity(ctx, rounds)
    raise AssertionError  # the rounds do not end


def _why(run: Run, outcome: Outcome, status: process.ProcessStatus) -> str:
    if outcome is Outcome.SUCCEEDED or status.message:
        return status.message
    if outcome is Outcome.CANCELLED:
        return "cancelled"
    if status.reason in ("deadline", "idle"):
        return f"its machine ended itself: {status.reason}"
    if outcome is Outcome.TIMED_OUT:
        return f"over its limit of {run.max_hours:g} h" if run.max_hours else "over its limit"
    if status.exit_code == EXIT_RESUME_ME:
        return f"saved its state and asks to be resumed: cloudrun restart {run.id}"
    return f"exit code {status.exit_code}"


class _Listener:
    """Takes in what the agent says of one attempt; knows where to go on after a cut."""

    def __init__(self, ctx: Context, run: Run, attempt: Attempt, log: BinaryIO) -> None:
        self._ctx, self._run, self._key, self._log = ctx, run, process_key(attempt), log
        self._metric_offset = 0

    def listen(self, shell: Shell) -> process.ProcessStatus:
        """Until the process ended. Raises ConnectionLost, ConnectFailed when the line died."""
        offsets = {"log_offset": self._log.tell(), "metric_offset": self._metric_offset}
        for item in process.follow(shell, self._key, **offsets):
            if isinstance(item, process.LogChunk):
                self._log.write(item.data)
                self._log.flush()
                self._ctx.on_event(LogData(item.data))
            elif isinstance(item, process.Metric):
                self._metric_offset = item.offset
                self._note_metric(item.line)
            elif item.status.state in STATE_OF:
                self._note_state(item.status)
            else:
                return item.status
        raise ConnectionLost("the machine stopped talking before the run ended")

    def take_line(self, line: bytes) -> None:
        """A line of the job's metrics that did not come over the line."""
        with suppress(ValueError, RecursionError):
            values = json.loads(line)
            if isinstance(values, dict):
                self._note_metric(values)

    def _note_state(self, status: process.ProcessStatus) -> None:
        state = STATE_OF[status.state]
        if self._run.state is state:
            return
        started_at = self._run.started_at or (status.started_at if state is RunState.RUNNING else None)
        self._run = self._ctx.update(self._run, state=state, started_at=started_at)

    def _note_metric(self, line: Mapping[str, object]) -> None:
        """Keep the best value so far of the job's metric."""
        run = self._run
        self._ctx.on_event(MetricLine(line))
        value = line.get(run.metric_name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return
        best = run.metric_value
        if best is None or (value > best if run.metric_direction == "max" else value < best):
            self._run = self._ctx.update(run, metric_value=float(value))


class _Side:
    """Beside the listener: pulls the newest checkpoint on a timer, and passes a cancel on.

    Its failures are left to the listener, which notices a broken line by itself.
    """

    def __init__(self, ctx: Context, run: Run, attempt: Attempt, checkpoint: str) -> None:
        self.shell: Shell | None = None
        self._ctx, self._run, self._attempt, self._checkpoint = ctx, run, attempt, checkpoint
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"side-{run.id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _loop(self) -> None:
        pull_at = time.monotonic() + min(CHECKPOINT_PULL_S, self._ctx.settings.poll_s * 4)
        told = False
        while not self._done.wait(CANCEL_POLL_S):
            shell = self.shell
            if shell is None:
                continue
            try:
                if not told and self._ctx.store.find_run(self._run.id).cancel_requested:
                    process.signal(shell, process_key(self._attempt), reason="cancelled")
                    told = True
                if self._checkpoint and time.monotonic() >= pull_at:
                    self._pull(shell)
                    pull_at = time.monotonic() + min(CHECKPOINT_PULL_S, self._ctx.settings.poll_s * 4)
            except CloudrunError:
                continue

    def _pull(self, shell: Shell) -> None:
        outputs = self._ctx.files(self._run).outputs
        key = process_key(self._attempt)
        found = transfer.pull_outputs(shell, key, outputs, prefix=self._checkpoint + "/")
        self._ctx.store.note_received(self._run.id, self._attempt.number, found.bytes_received)
