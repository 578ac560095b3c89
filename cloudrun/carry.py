"""What travels between home and the machine for one attempt: code and checkpoint there, outputs back."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace

from cloudrun import bundle, rent
from cloudrun.attempts import Order, process_key
from cloudrun.context import Context
from cloudrun.errors import BootFailed, ConnectFailed, ConnectionLost, MachineError, Refused
from cloudrun.events import Progress
from cloudrun.models import Attempt, Machine, Run
from cloudrun.records import to_json
from cloudrun.remote import process, transfer
from cloudrun.remote.shell import Shell

PULL_TRIES = 5
RETRY_S = 0.5


def process_spec(
    ctx: Context, run: Run, attempt: Attempt, order: Order, resume_from: str
) -> process.ProcessSpec:
    """The process as the agent starts it. Raises Refused when a secret it needs was lost with its client."""
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
        env={**dict(run.env), **ctx.secrets, "CLOUDRUN_RUN_ID": run.id},
        max_seconds=run.max_hours * 3600 if run.max_hours else None,
        gpus=order.gpu_count,
        resume_from=resume_from,
        labels={"run": json.dumps(to_json(replace(run, env=()))), "order": json.dumps(to_json(order))},
    )


def push_code(ctx: Context, run: Run, shell: Shell) -> None:
    """The run's own snapshot of the code; content that the machine has does not travel."""
    transfer.push_bundle(
        shell,
        bundle.load_manifest(ctx.files(run).bundle),
        bundle.content_of(ctx.settings.objects_dir),
        progress=_shown(ctx, "push"),
    )


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
        progress=_shown(ctx, "checkpoint"),
    )


def bring_home(ctx: Context, run: Run, attempt: Attempt, machine: Machine) -> str:
    """Pull and verify the outputs; a note instead where there are none to be had.

    The machine may be ending itself meanwhile (its deadline): a free one is started again for the pull.
    """
    if attempt.started_at is None:
        return ""
    for tries_left in reversed(range(PULL_TRIES)):
        machine = rent.wake(ctx, machine)
        if machine.state.gone:
            return f"outputs not yet pulled went with {machine.name}"
        try:
            machine, shell = rent.await_ready(ctx, machine)
            with closing(shell):
                _pull(ctx, run, attempt, shell)
            break
        except BootFailed:
            raise
        except (ConnectionLost, ConnectFailed, MachineError):
            if not tries_left:
                raise
            time.sleep(min(RETRY_S, ctx.settings.poll_s))
    return ""


def _pull(ctx: Context, run: Run, attempt: Attempt, shell: Shell) -> None:
    transfer.pull_outputs(
        shell,
        process_key(attempt),
        ctx.files(run).outputs,
        progress=_shown(ctx, "pull"),
    )


def _shown(ctx: Context, what: str) -> transfer.Progress:
    """Bytes done and bytes in all, passed on to whoever watches."""
    return lambda done, total: ctx.on_event(Progress(what, done, total))
