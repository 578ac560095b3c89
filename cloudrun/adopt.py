"""The truth against the store: what providers, machines and run folders know is written back where the
store does not know it. With the store deleted, `adopt` rebuilds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

from cloudrun import charging
from cloudrun.attempts import offer_of
from cloudrun.context import Context
from cloudrun.errors import CloudrunError, NotFound, ProviderError
from cloudrun.events import Note
from cloudrun.models import Attempt, Charge, Machine, MachineState, Run, RunState, Stage
from cloudrun.records import from_json
from cloudrun.remote import process
from cloudrun.runfiles import RunFiles


def adopt(ctx: Context, providers: tuple[str, ...]) -> list[Machine]:
    """Take up every machine of ours that the store does not know, and every run found on it or at home.

    Blocking; asks each provider for its machines and each running machine for its runs.
    Idempotent: what is known is left as it is. Returns the machines that were new.
    """
    for folder in sorted(ctx.settings.runs_dir.glob("*/run.json")):
        _adopt_from_home(ctx, folder.parent.name)  # first: a run knows what is charged for its machine
    adopted = [machine for name in providers for machine in _adopt_machines(ctx, name)]
    for machine in ctx.store.list_machines():
        if machine.state is MachineState.RUNNING:
            _adopt_from_machine(ctx, machine)
    return adopted


def _adopt_machines(ctx: Context, provider: str) -> list[Machine]:
    new: list[Machine] = []
    try:
        found = ctx.provider(provider).list_machines()
    except ProviderError as error:  # no SDK, no account: nothing of ours there, or nobody can tell
        ctx.on_event(Note(f"{provider} was not asked: {error.message}"))
        return []
    for machine in found:
        if machine.state.gone or ctx.store.get_machine(machine.name) is not None:
            continue
        ctx.store.add_machine(machine)
        new.append(machine)
        charged = ctx.store.list_charges(machine=machine.name, open_only=True)
        if machine.launched_at is not None and not charged:
            offer, at = offer_of(machine), machine.launched_at
            charging.open_rent(ctx, offer, disk_gb=machine.disk_gb, machine=machine.name, run="", at=at)
    return new


def _adopt_from_home(ctx: Context, run_id: str) -> None:
    """A run whose folder outlived the store. run.json may be older than its end: walking it again tells."""
    if _known(ctx, run_id):
        return
    try:
        data = RunFiles(ctx.settings, run_id).load_record()
        run = from_json(Run, data["run"])
        attempts = [from_json(Attempt, item) for item in data.get("attempts", [])]
        charges = [replace(from_json(Charge, item), id=None) for item in data.get("charges", [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        ctx.on_event(Note(f"{run_id}: its run.json cannot be read ({error}); left as it is"))
        return
    if attempts:
        if not run.state.final and attempts[-1].started_at is not None:
            run = _on_its_way(run, attempts[-1].machine)
        ctx.store.add_run(run, attempts[0], charges)
        for attempt in attempts[1:]:
            ctx.store.add_attempt(attempt)


def _adopt_from_machine(ctx: Context, machine: Machine) -> None:
    try:
        with closing(ctx.connect(machine)) as shell:
            for key, status in process.list_runs(shell).items():
                run_id, _, number = key.rpartition(".")
                if not _known(ctx, run_id):
                    _adopt_process(ctx, machine, run_id, int(number), status, process.read_spec(shell, key))
    except CloudrunError as error:
        ctx.on_event(Note(f"{machine.name} cannot be looked into from here: {error.message}"))


def _adopt_process(
    ctx: Context,
    machine: Machine,
    run_id: str,
    number: int,
    status: process.ProcessStatus,
    spec: Mapping[str, object],
) -> None:
    """A run that only its machine remembers."""
    labels = spec.get("labels")
    try:
        assert isinstance(labels, Mapping)  # noqa: S101  # as we wrote it; anything else is handled below
        run = from_json(Run, json.loads(labels["run"]))
        order = json.loads(labels["order"])
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        ctx.on_event(Note(f"{machine.name} holds a run {run_id} that is not ours to read: {error}"))
        return
    run = _on_its_way(replace(run, id=run_id), machine.name)
    attempt = Attempt(
        run=run_id,
        number=number,
        token=machine.token,
        offer=offer_of(machine),
        machine=machine.name,
        started_at=status.started_at or run.submitted_at,
    )
    files = RunFiles(ctx.settings, run_id)
    files.create()
    files.save_record({"run": json.loads(labels["run"]), "order": order})
    ctx.store.add_run(run, attempt, ())


def _on_its_way(run: Run, machine: str) -> Run:
    """At stage 9, from where `attach` walks it home, whatever became of it since."""
    return replace(run, state=RunState.RUNNING, stage=Stage.FOLLOW, machine=machine)


def _known(ctx: Context, run_id: str) -> bool:
    try:
        return ctx.store.find_run(run_id).id == run_id
    except NotFound:
        return False
