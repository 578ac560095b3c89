"""What travels between home and the machine for one attempt: code and checkpoint there, outputs back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cloudrun import access, bucket_outputs, bundle, charging, datasets_remote, outbox, rent
from cloudrun.attempts import Order, process_key
from cloudrun.bucket import open_bucket
from cloudrun.context import Context, now
from cloudrun.errors import (
    BootFailed,
    CloudrunError,
    ConnectFailed,
    ConnectionLost,
    MachineError,
    NotFound,
    ProviderError,
    Refused,
    RemoteError,
    TransferFailed,
    UsageError,
)
from cloudrun.events import Note, Progress
from cloudrun.models import Attempt, DataInput, Machine, MachineState, Market, OnPreempt, Run
from cloudrun.records import to_json
from cloudrun.remote import process, transfer
from cloudrun.remote.process import ProcessStatus
from cloudrun.remote.shell import Shell

OUTBOX_WAIT_POLLS = 8  # for a client, after the run's end: two minutes
OUTBOX_MARGIN = timedelta(hours=1)  # of a signature, beyond the guard's deadline
LONGEST_SIGNED = timedelta(days=7)  # at S3
CERTIFICATE_END = "-----END CERTIFICATE-----\n"
PULL_TRIES = 5
RETRY_S = 0.5


def process_spec(
    ctx: Context,
    run: Run,
    attempt: Attempt,
    machine: Machine,
    order: Order,
    resume_from: str,
    data: Mapping[str, str],
) -> process.ProcessSpec:
    """The process as the agent starts it; data: the variables of push_data. Raises Refused when a secret that
    it needs was lost with its client."""
    missing = [name for name in order.secrets if name not in ctx.secrets]
    if missing:
        raise Refused(
            f"the run needs {', '.join(missing)}, which is not kept between processes",
            hint=f"cloudrun restart {run.id} --secret {missing[0]}",
        )
    return process.ProcessSpec(
        key=process_key(attempt),
        bundle=run.bundle,
        command=run.command,
        outputs=run.outputs,
        env={
            **_stack_env(order, machine),
            **dict(run.env),
            **ctx.secrets,
            **data,
            "CLOUDRUN_RUN_ID": run.id,
        },
        max_seconds=run.max_hours * 3600 if run.max_hours else None,
        gpus=order.gpu_count,
        resume_from=resume_from,
        resume=order.checkpoint if _comes_back(machine) else "",
        secrets=order.secrets,
        labels={"run": json.dumps(to_json(replace(run, env=()))), "order": json.dumps(to_json(order))},
    )


def _stack_env(order: Order, machine: Machine) -> dict[str, str]:
    """The stack's variables for that machine: {cpus} is the number of its processors."""
    cpus = dict(machine.versions).get("cpu_count", "1")
    return {name: value.replace("{cpus}", cpus) for name, value in order.stack.env}


def _comes_back(machine: Machine) -> bool:
    """Whether the machine is started again by its provider, same disk, after a preemption."""
    return dict(machine.detail).get("on-preempt") == OnPreempt.STOP


def push_code(ctx: Context, run: Run, shell: Shell) -> None:
    """The run's own snapshot of the code; content that the machine has does not travel."""
    transfer.push_bundle(
        shell,
        bundle.load_manifest(ctx.files(run).bundle),
        bundle.content_of(ctx.settings.objects_dir),
        progress=_Shown(ctx, "push"),
    )


def push_data(ctx: Context, attempt: Attempt, inputs: Sequence[DataInput], shell: Shell) -> dict[str, str]:
    """The run's data, put or fetched there as far as it is missing; the variables that say where it is.

    Raises Refused for data that cannot be had there: to ask again would pay for a machine that waits.
    """
    if not inputs:
        return {}
    machine = ctx.store.find_machine(attempt.machine)
    mounts = [(data.mount, data.digest) for data in inputs]

    def send() -> None:
        for data in inputs:
            _push_input(ctx, attempt, machine, data, shell)

    try:
        view = datasets_remote.lay_out(shell, process_key(attempt), mounts, send)
    except (TransferFailed, NotFound) as error:
        raise Refused(error.message, hint=error.hint) from error
    return {"CLOUDRUN_DATA_DIR": view, "CLOUDRUN_DATA_NAMES": ":".join(data.mount for data in inputs)}


def _push_input(ctx: Context, attempt: Attempt, machine: Machine, data: DataInput, shell: Shell) -> None:
    progress = _Shown(ctx, data.source)
    if data.url:
        datasets_remote.fetch(shell, data, progress=progress)
        return
    bucket = datasets_remote.bring(
        ctx.settings,
        shell,
        machine,
        data.digest,
        authority=_authority(ctx),
        note=lambda message: ctx.on_event(Note(message)),
        progress=progress,
    )
    if bucket is not None and progress.done:
        charging.charge_moved(ctx, attempt, bucket, progress.done, to_bucket=False)


def push_checkpoint(ctx: Context, run: Run, attempt: Attempt, shell: Shell) -> str:
    """The newest checkpoint at home, put where the process finds it; "" on a first try."""
    folder = ctx.files(run).checkpoint
    if not (run.resume and attempt.number > 1 and folder.is_dir() and any(folder.iterdir())):
        return ""
    return transfer.push_folder(
        shell,
        process_key(attempt),
        folder,
        "resume",
        progress=_Shown(ctx, "checkpoint"),
    )


def bring_home(ctx: Context, run: Run, attempt: Attempt, machine: Machine, order: Order) -> str:
    """Pull and verify the outputs, or take what the machine left in the run's bucket; a note instead where
    there are none to be had. Once all is at home, later calls ask nobody.

    The machine may be ending itself meanwhile (its deadline): a free one is started again for the pull.
    """
    home = "" if attempt.started_at is None else ctx.files(run).home_note(attempt.number)
    if home is not None:
        return home
    for tries_left in reversed(range(PULL_TRIES)):
        machine = rent.wake(ctx, machine)
        if machine.state.gone or (machine.state is MachineState.STOPPED and machine.market is not Market.OWN):
            try:
                if take_outbox(ctx, run, attempt, order) is not None:
                    return ctx.files(run).home_note(attempt.number) or ""
            except TransferFailed as damage:
                return f"outputs not yet pulled went with {machine.name}; {damage.message}"
        if machine.state.gone:
            return f"outputs not yet pulled went with {machine.name}"
        try:
            machine, shell = access.await_ready(ctx, machine)
            with closing(shell):
                _pull(ctx, run, attempt, shell)
                ctx.files(run).note_home(attempt.number)
                _drop_outbox(attempt, machine, order, shell)
            break
        except BootFailed:
            raise
        except (ConnectionLost, ConnectFailed, MachineError):
            if not tries_left:
                raise
            time.sleep(min(RETRY_S, ctx.settings.poll_s))
    return ""


def store_outputs(ctx: Context, run: Run, order: Order) -> str:
    """The outputs that are home, put into the run's bucket where it has one; a note instead where that
    fails: they are home, and can be pushed again."""
    if not order.outputs_to:
        return ""
    files = ctx.files(run)
    try:
        bucket = open_bucket(order.outputs_to, ctx.settings)
        progress = _Shown(ctx, "store")
        bucket_outputs.push(bucket, run.id, files.outputs, cache=files.hashes, progress=progress)
    except CloudrunError as error:
        return (
            f"outputs are home but not in {order.outputs_to}: {error.message}; cloudrun outputs push {run.id}"
        )
    return ""


def leave_outbox(
    ctx: Context, run: Run, attempt: Attempt, machine: Machine, order: Order, shell: Shell
) -> None:
    """Where the run has a bucket, let a rented machine store there what nobody comes for; addresses that an
    earlier client left are renewed. What stands in the way is said, and stops nothing."""
    if not _has_outbox(machine, order):
        return
    until = min(_outbox_until(machine), now() + LONGEST_SIGNED)
    try:
        bucket = open_bucket(order.outputs_to, ctx.settings)
        outbox.leave(
            shell,
            process_key(attempt),
            bucket,
            lives_s=max(0.0, (until - now()).total_seconds()),
            wait_s=OUTBOX_WAIT_POLLS * ctx.settings.poll_s,
            authority=_authority(ctx),
        )
        ctx.files(run).note_outbox(attempt.number, until)
    except (ProviderError, UsageError, RemoteError) as error:
        ctx.on_event(Note(f"without a client nothing of {run.id} would reach its bucket: {error.message}"))
        return
    if bucket.signing_limit:
        ctx.on_event(Note(bucket.signing_limit))


def take_outbox(ctx: Context, run: Run, attempt: Attempt, order: Order) -> ProcessStatus | None:
    """What the machine left in the run's bucket, brought home and verified (blocking): how the attempt ended.
    None where it left nothing. Raises TransferFailed for what was damaged there."""
    if not order.outputs_to or attempt.started_at is None:
        return None
    files, progress = ctx.files(run), _Shown(ctx, "fetch")
    bucket = open_bucket(order.outputs_to, ctx.settings)
    letter = outbox.fetch(
        bucket,
        process_key(attempt),
        outputs=files.outputs,
        log=files.log(attempt.number),
        progress=progress,
    )
    if letter is None:
        until = files.outbox_until(attempt.number)
        if until is not None and until < now():
            ended = f"its addresses there lived until {until:%Y-%m-%d %H:%M} UTC"
            ctx.on_event(Note(f"{attempt.machine} left nothing in {order.outputs_to}: {ended}"))
        return None
    lost = [
        f"{len(letter.skipped)} outputs went with {attempt.machine}, as {path!r}"
        for path in letter.skipped[:1]
    ]
    files.note_home(attempt.number, "".join(lost))
    stored_bytes = sum(size for size, _ in letter.parts)
    charging.charge_outbox(ctx, attempt, bucket, stored_bytes=stored_bytes, fetched_bytes=progress.done)
    ctx.on_event(Note(f"{attempt.machine} left its outputs in {order.outputs_to}: they are home"))
    return letter.status


def sweep_outbox(ctx: Context, run: Run, order: Order) -> None:
    """Remove what machines left in the bucket, once all is at home. What stays is said, and harms nothing."""
    if not order.outputs_to:
        return
    try:
        outbox.sweep(open_bucket(order.outputs_to, ctx.settings), run.id)
    except CloudrunError as error:
        ctx.on_event(Note(f"the machine's parts stay in {order.outputs_to}: {error.message}"))


def salvage(ctx: Context, run: Run, attempt: Attempt) -> None:
    """From a machine that is being taken: the outputs, its checkpoint first, while it still answers (blocking
    until it is gone). What does not come in time was pulled by the timer, or is lost."""
    machine = ctx.store.get_machine(attempt.machine)
    if machine is None or attempt.started_at is None:
        return
    try:
        machine = rent.refresh(ctx, machine)
        if machine.state is not MachineState.RUNNING:
            return
        with closing(ctx.connect(machine)) as shell:
            for prefix in ("checkpoint/", "") if run.resume else ("",):
                _pull(ctx, run, attempt, shell, prefix=prefix)
    except CloudrunError as error:
        ctx.on_event(Note(f"not all outputs of {machine.name} could be saved: {error.message}"))


def _has_outbox(machine: Machine, order: Order) -> bool:
    """One's own machine stays, with all that is on it."""
    return bool(order.outputs_to) and machine.market is not Market.OWN


def _outbox_until(machine: Machine) -> datetime:
    """How long the machine may need its addresses: one that comes back may be off for days, and goes on then
    beyond its deadline."""
    if machine.deadline_at is None or _comes_back(machine):
        return datetime.max.replace(tzinfo=UTC)
    return machine.deadline_at + OUTBOX_MARGIN


def _drop_outbox(attempt: Attempt, machine: Machine, order: Order, shell: Shell) -> None:
    if _has_outbox(machine, order):
        with suppress(RemoteError):  # it would store in vain
            outbox.drop(shell, process_key(attempt))


def _authority(ctx: Context) -> str:
    """What a rehearsal's machine has to trust: the first certificate of the file that this process trusts."""
    path = os.environ.get("SSL_CERT_FILE", "") if ctx.settings.sim else ""
    if not path:
        return ""
    head, end, _ = Path(path).read_text(encoding="ascii").partition(CERTIFICATE_END)
    return head + end


def _pull(ctx: Context, run: Run, attempt: Attempt, shell: Shell, *, prefix: str = "") -> None:
    found = transfer.pull_outputs(
        shell,
        process_key(attempt),
        ctx.files(run).outputs,
        prefix=prefix,
        progress=_Shown(ctx, "pull"),
    )
    ctx.store.note_received(run.id, attempt.number, found.bytes_received)


class _Shown:
    """Bytes done and bytes in all, passed on to whoever watches; how many were done last."""

    def __init__(self, ctx: Context, what: str) -> None:
        self.done, self._ctx, self._what = 0, ctx, what

    def __call__(self, done: int, total: int) -> None:
        self.done = done
        self._ctx.on_event(Progress(self._what, done, total))
