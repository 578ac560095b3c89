"""The Python API: the same verbs as the command line, which uses nothing else.

    from cloudrun import Client
    client = Client()
    run = client.submit(client.plan("svhn_rcnn", preset="smoke"))
    print(run.state, run.metric_value, client.files(run.id).outputs)

Names, ids and unique prefixes all resolve; `last` is the newest run. Modules are loaded on
use: making a Client and listing runs needs no SSH, no provider and no pydantic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Thread

from cloudrun.client_budget import BudgetVerbs
from cloudrun.client_clean import CleanVerbs
from cloudrun.client_data import DataVerbs
from cloudrun.client_images import ImageVerbs
from cloudrun.client_machines import NO_SECRETS
from cloudrun.client_money import MoneyVerbs
from cloudrun.client_outputs import OutputVerbs
from cloudrun.client_stacks import StackVerbs
from cloudrun.config import Settings, load_settings
from cloudrun.errors import CloudrunError, Refused
from cloudrun.events import OnEvent, Progress, ignore
from cloudrun.models import (
    NO_OPTIONS,
    Attempt,
    BundleFile,
    LaunchOptions,
    MachineState,
    Market,
    Plan,
    Run,
    Stage,
)
from cloudrun.runfiles import RunFiles
from cloudrun.store import Store

CONNECT_TIMEOUT_S = 20.0


class Client(MoneyVerbs, BudgetVerbs, CleanVerbs, DataVerbs, OutputVerbs, StackVerbs, ImageVerbs):
    """One user's cloudrun: settings, store, and everything that can be done with them."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self.store = Store(self.settings.store_path)
        self._providers = {}

    # --- runs --------------------------------------------------------------------------------

    def warm_up(self, on: str = "") -> None:
        """Begin to connect to the machine that a submit will use, and return at once.

        The connection is made while the plan reads the job's folder. What goes wrong is left to
        whoever uses the connection; a machine that has still to be launched is nothing to connect to.
        """
        ready = [each for each in self.store.list_machines() if each.state is MachineState.RUNNING]
        wanted = [each for each in ready if each.name == on or not (on or each.run_owned)]
        if len(wanted) == 1 and wanted[0].address is not None:
            Thread(target=self._connect, args=(wanted[0].name,), daemon=True).start()

    def plan(
        self,
        job: str | Path,
        *,
        preset: str = "",
        args: Sequence[str] = (),
        stack: str = "",
        type: str = "",
        market: Market | None = None,
        on: str = "",
        max_hours: float | None = None,
        budget_usd: Decimal | None = None,
        disk_gb: int = 0,
        keep: bool = False,
        allow_secrets: bool = False,
        env: Sequence[tuple[str, str]] = (),
        regions: Sequence[str] = (),
        options: LaunchOptions = NO_OPTIONS,
        retry_until_up: bool = False,
        data: Sequence[str] = (),
        outputs_to: str = "",
    ) -> Plan:
        """Stages 1 to 4. Free: nothing is stored, launched or sent. Raises UsageError, ProviderError.

        outputs_to: address of a bucket where outputs go too; without one, that of the settings.
        data: what the run is given, each NAME[:VERSION][:MOUNT] of a dataset or RUN:PATH of outputs.
        """
        from cloudrun.images_own import prefer
        from cloudrun.plan import make_plan

        made = make_plan(
            self.settings,
            str(job),
            preset=preset,
            args=tuple(args),
            stack=stack,
            type=type,
            market=market,
            on=self.machine(on).name if on and on != "local" else on,
            machines=self.machines(),
            providers=self.provider,
            max_hours=max_hours,
            budget_usd=budget_usd,
            disk_gb=disk_gb,
            keep=keep,
            allow_secrets=allow_secrets,
            env=tuple(env),
            regions=tuple(regions),
            options=options,
            retry_until_up=retry_until_up,
            data=self.data_inputs(data),
        )
        if not options.base_image:
            made = replace(made, candidates=prefer(self.settings, made.stack, made.candidates))
        place = self._check_place(outputs_to or self.settings.outputs)
        return replace(made, warnings=(*made.warnings, *self._check_budget(made)), outputs_to=place)

    def submit(
        self,
        plan: Plan,
        *,
        detach: bool = False,
        secrets: Mapping[str, str] = NO_SECRETS,
        on_event: OnEvent | None = None,
    ) -> Run:
        """Stages 5 to 10. Blocks until the run is final, or with detach until it is recorded. Raises
        Refused where the month's budget does not reach any more."""
        from cloudrun import supervise

        self._check_budget(plan)
        return supervise.submit(self.context(on_event=on_event, secrets=secrets), plan, detach=detach)

    def attach(self, run: str, *, on_event: OnEvent | None = None) -> Run:
        """Walk the run on, or watch where another process does (blocking). Logs so far come first."""
        from cloudrun import supervise

        return supervise.attach(self.context(on_event=on_event), self.run(run))

    def cancel(self, run: str) -> Run:
        """SIGTERM, then SIGKILL; outputs come home (blocking). Raises Refused when it has ended."""
        from cloudrun import supervise

        found = self.run(run)
        if found.state.final:
            raise Refused(f"{found.id} has ended: {found.state}", hint=f"cloudrun status {found.id}")
        self.store.update_run(found.id, cancel_requested=True)
        return supervise.settle(self.context(), found)

    def restart(
        self,
        run: str,
        *,
        detach: bool = False,
        secrets: Mapping[str, str] = NO_SECRETS,
        on_event: OnEvent | None = None,
    ) -> Run:
        """A further attempt at a run that ended, from its newest checkpoint; or walk on an unattended one.
        Raises Refused where the month's budget does not reach for another machine."""
        from cloudrun import execute, supervise

        ctx = self.context(on_event=on_event, secrets=secrets)
        found = self.run(run)
        if not self.files(found.id).record.exists():
            hint = "cloudrun clean --undo, or submit the job again"
            raise Refused(f"{found.id} was cleaned away: nothing is left to go on from", hint=hint)
        with self.files(found.id).walking() as hold:
            if not hold:
                raise Refused(f"{found.id} is still going on", hint=f"cloudrun attach {found.id}")
            found = self.run(found.id)
            if found.state.final:
                self.check_restart(ctx, found)
                found = execute.begin_again(ctx, found)
            walk = supervise.hand_over if detach else supervise.walk_here
            return walk(ctx, found, hold)

    def clone(self, run: str, to: Path) -> Path:
        """The code of the run as it ran, written to a folder that does not exist or is empty."""
        from cloudrun import bundle

        found = self.run(run)
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise Refused(f"{to} is not empty", hint="name a new folder")
        manifest = bundle.load_manifest(self.files(found.id).bundle)
        bundle.restore(manifest, self.settings.objects_dir, to)
        return to

    def runs(
        self, *, job: str = "", project: str = "", active: bool = False, limit: int | None = None
    ) -> list[Run]:
        """Newest first. A run that goes on carries its cost so far."""
        found = self.store.list_runs(job=job, project=project, active=active, limit=limit)
        return [run if run.state.final else self._costed(run) for run in found]

    def run(self, name: str) -> Run:
        """By id, unique prefix or `last`. Raises NotFound, Ambiguous."""
        found = self.store.find_run(name)
        return found if found.state.final else self._costed(found)

    def attempts(self, run: str) -> list[Attempt]:
        """Each machine's try at the run, the first first."""
        return self.store.list_attempts(self.run(run).id)

    def stages(self, run: str) -> list[tuple[int, Stage, datetime, float]]:
        """(attempt, stage, started at, seconds), in the order walked; attempt 0 is planning."""
        return self.store.list_stages(self.run(run).id)

    def unattended(self) -> list[Run]:
        """Unfinished runs that no process walks now."""
        return [run for run in self.runs(active=True) if not self.files(run.id).walked()]

    def revive(self) -> list[Run]:
        """Give each unattended run a supervisor. Cheap when there is none."""
        orphans = self.unattended()
        if not orphans:
            return []
        from cloudrun import supervise

        ctx = self.context()
        return [run for run in orphans if supervise.take_up(ctx, run)]

    def logs(self, run: str, *, follow: bool = False) -> Iterator[bytes]:
        """The log at home, all attempts; with follow as it grows until the run is final (blocking)."""
        from cloudrun import supervise

        found = self.run(run)
        if follow:
            self.revive()
            return supervise.follow_log(self.context(), found)
        return supervise.read_log(self.files(found.id))

    def files(self, run: str) -> RunFiles:
        """Where everything of the run lies on this computer."""
        return RunFiles(self.settings, self.run(run).id)

    # --- outputs -----------------------------------------------------------------------------

    def outputs(self, run: str) -> list[BundleFile]:
        """What is at home of the run's outputs; sha256 is "" (`pull` verified them)."""
        from cloudrun import outputs

        return outputs.list_folder(self.files(run).outputs)

    def pull_outputs(self, run: str, *, to: Path | None = None, on_event: OnEvent | None = None) -> Path:
        """Bring the outputs home as far as they are, from the machine of a run that goes on and from the
        run's bucket; with `to` also write them there. Returns the folder."""
        from cloudrun import outputs
        from cloudrun.attempts import process_key
        from cloudrun.remote import transfer

        found, emit = self.run(run), on_event or ignore
        home = self.files(found.id).outputs
        machine = self.store.get_machine(found.machine)
        if not found.state.final and machine is not None and machine.state is MachineState.RUNNING:
            attempt = self.store.list_attempts(found.id)[-1]
            pulled = transfer.pull_outputs(
                self.shell(machine.name),
                process_key(attempt),
                home,
                progress=lambda done, total: emit(Progress("pull", done, total)),
            )
            self.store.note_received(found.id, attempt.number, pulled.bytes_received)
        self.fetch_outputs(found.id, on_event=on_event)
        if to is None:
            return home
        outputs.copy_folder(home, to, progress=lambda done, total: emit(Progress("copy", done, total)))
        return to

    def _check_budget(self, plan: Plan) -> tuple[str, ...]:
        """Its warnings. Raises Refused."""
        if not self.settings.budgets:
            return ()
        from cloudrun import budget

        return budget.check_plan(self.store, self.settings.budgets, plan, now=datetime.now(UTC))

    def _connect(self, name: str) -> None:
        with suppress(CloudrunError):
            self.shell(name).run("true", timeout_s=CONNECT_TIMEOUT_S)

    def _costed(self, run: Run) -> Run:
        from cloudrun.runcost import cost_so_far_usd

        cost = cost_so_far_usd(self.store, run, now=datetime.now(UTC))
        return replace(run, cost_usd=cost)
