"""Stages 5 to 10: the metered half of the road, and its table of contents.

    record -> launch -> provision -> start -> follow -> release

`walk` goes from wherever the store says a run stands, so the same few lines serve a first
submit, an `attach` after a crash, and a supervisor. Every stage may be repeated: what is
already done is found done. Two edges run backward, both here: no capacity takes the next
candidate, and a preemption takes a new machine with the last checkpoint.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import NoReturn

from cloudrun import access, bundle, charging, ledger, rent, spending
from cloudrun.attempts import (
    Order,
    disk_gb_of,
    hourly_usd,
    new_attempt,
    new_run,
    next_offer,
    offer_of,
    order_of,
    process_key,
)
from cloudrun.capacity import REFUSALS, wait_for_capacity, where
from cloudrun.carry import (
    bring_home,
    leave_outbox,
    process_spec,
    push_checkpoint,
    push_code,
    push_data,
    salvage,
    store_outputs,
    sweep_outbox,
    take_outbox,
)
from cloudrun.context import CancelRequested, Context, now
from cloudrun.datasets_inputs import keep_inputs
from cloudrun.errors import (
    CloudrunError,
    CommandFailed,
    MachineError,
    Preempted,
    ProviderError,
    Refused,
    TransferFailed,
)
from cloudrun.events import Note, StageEnded, StageStarted, StateChanged
from cloudrun.follow import end_of, follow_process, stop_process, take_metrics
from cloudrun.gpu_seen import look_command, no_gpu
from cloudrun.guard import PULL_GRACE_MINUTES, make_guard
from cloudrun.models import (
    Attempt,
    Charge,
    LaunchSpec,
    Machine,
    Market,
    Offer,
    Outcome,
    Plan,
    Run,
    RunState,
    Stage,
)
from cloudrun.provision import provision as provision_machine
from cloudrun.records import to_json
from cloudrun.remote import process
from cloudrun.remote.shell import Shell
from cloudrun.runcost import cost_so_far_usd
from cloudrun.runfiles import RunFiles
from cloudrun.runrecord import load_order, save_record

FINAL_STATE = {
    Outcome.SUCCEEDED: RunState.SUCCEEDED,
    Outcome.FAILED: RunState.FAILED,
    Outcome.NO_CAPACITY: RunState.FAILED,
    Outcome.CANCELLED: RunState.CANCELLED,
    Outcome.TIMED_OUT: RunState.TIMED_OUT,
    Outcome.PREEMPTED: RunState.LOST,
    Outcome.LOST: RunState.LOST,
}


def walk(ctx: Context, run: Run) -> Run:
    """Stages 6 to 10 until the run is final (blocking). The caller holds the run's lock.

    A lost connection is raised and decides nothing: walk again. Errors of provider or
    machine end the run, let its machine go, and are raised.
    """
    while not run.state.final:
        attempt = _newest_attempt(ctx, run)
        try:
            if attempt.outcome is None:
                machine, shell = launch(ctx, run, attempt)
                with closing(shell):
                    machine = provision(ctx, run, attempt, machine, shell)
                    run = start(ctx, run, attempt, machine, shell)
                    attempt = follow(ctx, run, attempt, machine, shell)
            run = release(ctx, run, attempt)
        except REFUSALS as refusal:
            run = take_next_candidate(ctx, run, attempt, refusal)
        except Preempted as loss:
            attempt = _newest_attempt(ctx, run)  # it has started since
            run = settle_by_outbox(ctx, run, attempt, loss) or move_on(ctx, run, attempt, loss)
        except CancelRequested:
            stop_process(ctx, run, _newest_attempt(ctx, run))  # it may have started since
        except (ProviderError, MachineError, Refused) as error:
            attempt = _newest_attempt(ctx, run)
            run = settle_by_outbox(ctx, run, attempt, error) or fail(ctx, run, attempt, error)
    return run


def record(ctx: Context, plan: Plan, run_id: str) -> Run:
    """5. Snapshot the code; commit run, first attempt and OPEN charge, before any paid call."""
    if not plan.machine and not plan.candidates:
        raise Refused("the plan has no machine to run on", hint="cloudrun offers")
    for name in {offer.provider for offer in plan.candidates}:
        ctx.provider(name)  # planned from the catalogue, but not to be had here: said before anything is kept
    ctx.on_event(StageStarted(Stage.RECORD))
    began_at = now()
    keep_inputs(ctx.settings, plan.data)
    files = RunFiles(ctx.settings, run_id)
    files.create()
    snapshot = bundle.snapshot(plan.bundle, ctx.settings.objects_dir)
    run = new_run(plan, run_id, snapshot.digest, at=now())
    bundle.save_manifest(snapshot, files.bundle)
    order = order_of(plan, tuple(ctx.secrets))
    files.save_record({"run": to_json(run), "order": to_json(order)})
    offer = offer_of(ctx.store.find_machine(plan.machine)) if plan.machine else plan.candidates[0]
    attempt = new_attempt(run, 1, offer)
    charges = [] if run.on else _charges(run, order, attempt)
    ctx.store.add_run(replace(run, machine=attempt.machine), attempt, charges)
    for stage, seconds in plan.stage_seconds:
        ctx.store.add_stage(run.id, 0, stage, run.submitted_at, seconds)
    seconds = (now() - began_at).total_seconds()
    ctx.store.add_stage(run.id, 0, Stage.RECORD, began_at, seconds)
    run = ctx.store.find_run(run.id)
    ctx.on_event(StateChanged(run))
    ctx.on_event(StageEnded(Stage.RECORD, seconds))
    return run


def launch(ctx: Context, run: Run, attempt: Attempt) -> tuple[Machine, Shell]:
    """6. A machine that answers: the one that was named, or one launched for this attempt."""
    with ctx.stage(Stage.LAUNCH, run, attempt.number):
        machine = ctx.store.get_machine(attempt.machine)
        repeat = machine is not None
        if machine is None and run.on:
            raise MachineError(f"no machine {run.on} is known any more", hint="cloudrun machines list --all")
        if machine is None:
            machine = rent.placeholder(_spec(ctx, run, attempt))
            ctx.store.add_machine(machine)
        if not machine.id and not machine.state.gone:
            machine = rent.launch_machine(ctx, _spec(ctx, run, attempt), repeat=repeat)
        if machine.market is Market.OWN:
            machine = rent.wake(ctx, machine)
        fresh = attempt.started_at is None  # a job that runs already is not ended for what nvidia-smi says
        greeting = look_command(machine, load_order(ctx, run).stack) if fresh else access.GREETING
        try:
            return access.await_ready(
                ctx, machine, each_turn=lambda: ctx.refuse_cancelled(run), greeting=greeting
            )
        except CommandFailed as failure:
            raise no_gpu(machine, failure.result) from failure


def provision(ctx: Context, run: Run, attempt: Attempt, machine: Machine, shell: Shell) -> Machine:
    """7. The machine holds what the stack pins; versions as really there are kept with it."""
    with ctx.stage(Stage.PROVISION, run, attempt.number):
        if machine.provisioned and machine.stack == run.stack:
            return machine
        machine = access.secure(ctx, machine, shell)
        stack = load_order(ctx, run).stack
        versions = provision_machine(shell, machine, stack, ctx.settings, on_event=ctx.on_event)
        return ctx.store.update_machine(
            machine.name, provisioned=True, stack=run.stack, versions=tuple(sorted(versions.items()))
        )


def start(ctx: Context, run: Run, attempt: Attempt, machine: Machine, shell: Shell) -> Run:
    """8. Code, data and last checkpoint pushed, the process started detached. A known one is left alone, and
    told anew where it may leave its outputs."""
    with ctx.stage(Stage.START, run, attempt.number):
        key = process_key(attempt)
        order = load_order(ctx, run)
        leave_outbox(ctx, run, attempt, machine, order, shell)
        if attempt.started_at is None or process.status(shell, key).state is process.ProcessState.ABSENT:
            push_code(ctx, run, shell)
            resume_from = push_checkpoint(ctx, run, attempt, shell)
            data = push_data(ctx, attempt, order.data, shell)
            process.start(shell, process_spec(ctx, run, attempt, machine, order, resume_from, data))
            ctx.store.update_attempt(run.id, attempt.number, started_at=now())
            save_record(ctx, run, locks={str(attempt.number): dict(machine.versions)})
        return ctx.set_state(run, RunState.QUEUED if run.state is RunState.STARTING else run.state)


def follow(ctx: Context, run: Run, attempt: Attempt, machine: Machine, shell: Shell) -> Attempt:
    """9. Log, metrics and checkpoints come home until the process ended; its outcome is stored."""
    with ctx.stage(Stage.FOLLOW, run, attempt.number):
        status = follow_process(ctx, run, attempt, machine, shell, checkpoint=load_order(ctx, run).checkpoint)
        return end_of(ctx, run, attempt, status)


def release(ctx: Context, run: Run, attempt: Attempt) -> Run:
    """10. Outputs home and verified, the machine let go, the charge closed; then, with nothing billed any
    more, the outputs to the run's bucket where it has one."""
    with ctx.stage(Stage.RELEASE, run, attempt.number):
        run, order = ctx.set_state(run, RunState.RELEASING), load_order(ctx, run)
        machine = ctx.store.get_machine(attempt.machine)
        said = []
        if machine is not None:
            said.append(bring_home(ctx, run, attempt, machine, order))
            if machine.run_owned and not order.keep:
                rent.let_go(ctx, machine)
            said.append(store_outputs(ctx, run, order))
            sweep_outbox(ctx, run, order)
    return finish(ctx, run, attempt, "; ".join(filter(None, said)))


def settle_by_outbox(ctx: Context, run: Run, attempt: Attempt, loss: CloudrunError) -> Run | None:
    """A machine that is gone may have said in the run's bucket how the run ended, and left its outputs there:
    then the run ends so. None where it did not, or was taken before the run's end: what it saved is home.

    What was damaged in the bucket is added to the loss, which then is the last word.
    """
    if attempt.outcome is not None:
        return None
    try:
        status = take_outbox(ctx, run, attempt, load_order(ctx, run))
    except TransferFailed as damage:
        loss.add(damage.message)
        return None
    if status is None or status.reason == "preempted":
        return None
    take_metrics(ctx, run, attempt)
    return release(ctx, run, end_of(ctx, run, attempt, status))


def finish(ctx: Context, run: Run, attempt: Attempt, note: str = "") -> Run:
    """The run's last word: final state, exit code, cost, and a record that survives the store."""
    outcome = attempt.outcome or Outcome.LOST
    charging.charge_received(ctx, attempt)
    run = ctx.update(
        run,
        state=FINAL_STATE[outcome],
        ended_at=attempt.ended_at or now(),
        exit_code=attempt.exit_code,
        message="; ".join(part for part in (attempt.message, note) if part),
        outputs_bytes=_bytes_below(ctx, run),
        cost_usd=cost_so_far_usd(ctx.store, run, now=now()),
    )
    save_record(ctx, run)
    return run


def take_next_candidate(ctx: Context, run: Run, attempt: Attempt, refusal: ProviderError) -> Run:
    """The first backward edge: within launch, the next candidate in price order."""
    _end_attempt(ctx, run, attempt, Outcome.NO_CAPACITY, refusal.message)
    rent.forget_launch(ctx, attempt.machine)
    ctx.on_event(Note(f"{where(attempt.offer)}: {refusal.message}"))
    order, attempts = load_order(ctx, run), ctx.store.list_attempts(run.id)
    offer = next_offer(order.candidates, attempts)
    if offer is None and order.retry_until_up:
        rounds = len(attempts) // len(order.candidates) - 1
        wait_for_capacity(ctx, rounds, each_turn=lambda: ctx.refuse_cancelled(run))
        offer = next_offer(order.candidates, attempts, again=True)
    if offer is None:
        finish(ctx, run, _newest_attempt(ctx, run))
        raise refusal
    try:
        spending.check_next(ctx, run, order, offer)
    except Refused:
        finish(ctx, run, _newest_attempt(ctx, run))
        raise
    return begin_attempt(ctx, run, offer)


def move_on(ctx: Context, run: Run, attempt: Attempt, loss: Preempted) -> Run:
    """The second backward edge: the provider took the machine, the run goes on elsewhere, as far as its own
    budget and the month's reach."""
    salvage(ctx, run, attempt)
    charging.charge_received(ctx, attempt)
    ended = _end_attempt(ctx, run, attempt, Outcome.PREEMPTED, loss.message)
    machine = ctx.store.get_machine(attempt.machine)
    if machine is not None and machine.run_owned:
        rent.let_go(ctx, rent.refresh(ctx, machine))
    offer = next_offer(load_order(ctx, run).candidates, ctx.store.list_attempts(run.id))
    if offer is None:
        return finish(ctx, run, ended, "cloudrun restart goes on elsewhere")
    try:
        spending.check_next(ctx, run, load_order(ctx, run), offer)
    except Refused as refusal:
        ctx.on_event(Note(f"{loss.message}; not going on: {refusal.message}; {refusal.hint}"))
        return finish(ctx, run, ended, refusal.message)
    ctx.on_event(Note(f"{loss.message}; going on with {where(offer)}"))
    return begin_attempt(ctx, run, offer)


def begin_attempt(ctx: Context, run: Run, offer: Offer) -> Run:
    """A new attempt and its OPEN charge, committed before its machine is asked for."""
    number = len(ctx.store.list_attempts(run.id)) + 1
    attempt = new_attempt(run, number, offer)
    ctx.store.add_attempt(attempt)
    if not run.on:
        for charge in _charges(run, load_order(ctx, run), attempt):
            ctx.store.add_charge(charge)
    return ctx.update(run, state=RunState.STARTING, stage=Stage.LAUNCH, machine=attempt.machine)


def fail(ctx: Context, run: Run, attempt: Attempt, error: CloudrunError) -> NoReturn:
    """Provider or machine said no for good: the run ends, nothing stays rented, the error goes on."""
    if attempt.outcome is not None:
        raise error  # during release: nothing is decided, outputs may still be on the machine
    outcome = Outcome.LOST if attempt.started_at else Outcome.FAILED
    ended = _end_attempt(ctx, run, attempt, outcome, error.message)
    machine = ctx.store.get_machine(attempt.machine)
    if machine is not None and machine.run_owned:
        rent.let_go(ctx, machine)
    elif machine is None:
        rent.forget_launch(ctx, attempt.machine)
    finish(ctx, run, ended)
    raise error


def begin_again(ctx: Context, run: Run) -> Run:
    """A further attempt at a run that ended (`restart`): it resumes from the newest checkpoint at home."""
    if run.on:
        offer: Offer | None = offer_of(ctx.store.find_machine(run.on))
    else:
        offer = next_offer(load_order(ctx, run).candidates, ())
    if offer is None:
        raise Refused(f"{run.id} has no machine to go on with", hint="submit the job again")
    run = ctx.store.update_run(
        run.id,
        cancel_requested=False,
        ended_at=None,
        exit_code=None,
        message="",
        metric_value=None,
        budget_usd=spending.granted_usd(ctx, run, load_order(ctx, run)),
    )
    return begin_attempt(ctx, run, offer)


def _spec(ctx: Context, run: Run, attempt: Attempt) -> LaunchSpec:
    order = load_order(ctx, run)
    guard = make_guard(
        now=now(),
        max_hours=run.max_hours,
        budget_usd=spending.left_usd(ctx, run, besides=attempt.machine),
        price_per_hour_usd=hourly_usd(attempt.offer, order.disk_gb),
        grace_minutes=PULL_GRACE_MINUTES,
        keep=order.keep,
    )
    return LaunchSpec(
        token=attempt.token,
        name=attempt.machine,
        offer=attempt.offer,
        stack=order.stack,
        guard=guard,
        disk_gb=disk_gb_of(attempt.offer, order.disk_gb),
        run_owned=True,
        options=order.options,
        tags=(("cloudrun-run", run.id), ("cloudrun-project", run.project)),
    )


def _charges(run: Run, order: Order, attempt: Attempt) -> list[Charge]:
    """The OPEN lines of the machine that an attempt launches for itself."""
    disk_gb = disk_gb_of(attempt.offer, order.disk_gb)
    return ledger.open_rent(attempt.offer, disk_gb=disk_gb, machine=attempt.machine, run=run.id, at=now())


def _newest_attempt(ctx: Context, run: Run) -> Attempt:
    return ctx.store.list_attempts(run.id)[-1]


def _end_attempt(ctx: Context, run: Run, attempt: Attempt, outcome: Outcome, message: str) -> Attempt:
    return ctx.store.update_attempt(run.id, attempt.number, outcome=outcome, message=message, ended_at=now())


def _bytes_below(ctx: Context, run: Run) -> int:
    outputs = ctx.files(run).outputs
    return sum(path.lstat().st_size for path in outputs.rglob("*") if not path.is_dir())
