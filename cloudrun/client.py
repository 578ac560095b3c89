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
from typing import TYPE_CHECKING

from cloudrun.config import Settings, load_settings
from cloudrun.errors import CloudrunError, Refused
from cloudrun.events import OnEvent, Progress, ignore
from cloudrun.guard import IDLE_MINUTES, make_guard
from cloudrun.models import (
    Attempt,
    BundleFile,
    Guard,
    Machine,
    MachineState,
    Market,
    Offer,
    Plan,
    Run,
    Stack,
    Stage,
)
from cloudrun.runfiles import RunFiles
from cloudrun.store import Store

if TYPE_CHECKING:
    from cloudrun.context import Context
    from cloudrun.remote.shell import Shell

NO_SECRETS: Mapping[str, str] = {}
CONNECT_TIMEOUT_S = 20.0


class Client:
    """One user's cloudrun: settings, store, and everything that can be done with them."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self.store = Store(self.settings.store_path)

    def context(self, *, on_event: OnEvent | None = None, secrets: Mapping[str, str] = NO_SECRETS) -> Context:
        """What the metered stages need; made anew for each walk."""
        from cloudrun.context import Context
        from cloudrun.providers import load_provider
        from cloudrun.remote.connect import connect

        def shell_of(machine: Machine) -> Shell:
            if machine.address is None:
                raise Refused(
                    f"{machine.name} has no address", hint=f"cloudrun machines start {machine.name}"
                )
            return connect(machine.address, self.settings, machine=machine.name)

        return Context(
            settings=self.settings,
            store=self.store,
            provider=lambda name: load_provider(name, self.settings),
            connect=shell_of,
            on_event=on_event or ignore,
            secrets=secrets,
        )

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
    ) -> Plan:
        """Stages 1 to 4. Free: nothing is stored, launched or sent. Raises UsageError, ProviderError."""
        from cloudrun.plan import make_plan
        from cloudrun.providers import load_provider

        return make_plan(
            self.settings,
            str(job),
            preset=preset,
            args=tuple(args),
            stack=stack,
            type=type,
            market=market,
            on=self.machine(on).name if on and on != "local" else on,
            machines=self.machines(),
            providers=lambda name: load_provider(name, self.settings),
            max_hours=max_hours,
            budget_usd=budget_usd,
            disk_gb=disk_gb,
            keep=keep,
            allow_secrets=allow_secrets,
            env=tuple(env),
            regions=tuple(regions),
        )

    def submit(
        self,
        plan: Plan,
        *,
        detach: bool = False,
        secrets: Mapping[str, str] = NO_SECRETS,
        on_event: OnEvent | None = None,
    ) -> Run:
        """Stages 5 to 10. Blocks until the run is final, or with detach until it is recorded."""
        from cloudrun import supervise

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
        """A further attempt at a run that ended, from its newest checkpoint; or walk on an unattended one."""
        from cloudrun import execute, supervise

        ctx = self.context(on_event=on_event, secrets=secrets)
        found = self.run(run)
        with self.files(found.id).walking() as hold:
            if not hold:
                raise Refused(f"{found.id} is still going on", hint=f"cloudrun attach {found.id}")
            found = self.run(found.id)
            if found.state.final:
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
        """Bring the outputs home as far as they are, from the machine of a run that goes on; with `to`
        also write them there. Returns the folder."""
        from cloudrun import outputs
        from cloudrun.attempts import process_key
        from cloudrun.remote import transfer

        found, emit = self.run(run), on_event or ignore
        home = self.files(found.id).outputs
        machine = self.store.get_machine(found.machine)
        if not found.state.final and machine is not None and machine.state is MachineState.RUNNING:
            key = process_key(self.store.list_attempts(found.id)[-1])
            transfer.pull_outputs(
                self.shell(machine.name),
                key,
                home,
                progress=lambda done, total: emit(Progress("pull", done, total)),
            )
        if to is None:
            return home
        outputs.copy_folder(home, to, progress=lambda done, total: emit(Progress("copy", done, total)))
        return to

    # --- machines ----------------------------------------------------------------------------

    def launch(
        self,
        *,
        type: str = "local",
        market: Market | None = None,
        name: str = "",
        stack: str = "",
        max_hours: float | None = None,
        budget_usd: Decimal | None = None,
        idle_minutes: float | None = IDLE_MINUTES,
        keep: bool = False,
        disk_gb: int = 0,
        regions: Sequence[str] = (),
        on_event: OnEvent | None = None,
    ) -> Machine:
        """A machine that stays until its guard, or you, end it. Blocks until it is ready for runs."""
        from cloudrun import machines

        found, candidates = self.plan_launch(
            type=type,
            market=market,
            stack=stack,
            regions=regions,
            max_hours=max_hours,
            budget_usd=budget_usd,
            disk_gb=disk_gb,
        )

        def guard_of(offer: Offer) -> Guard:
            return make_guard(
                now=datetime.now(UTC),
                max_hours=max_hours,
                budget_usd=budget_usd,
                price_per_hour_usd=offer.price_per_hour_usd,
                idle_minutes=idle_minutes,
                keep=keep,
            )

        return machines.launch(
            self.context(on_event=on_event),
            name=name,
            stack=found,
            candidates=candidates,
            guard_of=guard_of,
            disk_gb=disk_gb,
        )

    def plan_launch(
        self,
        *,
        type: str = "local",
        market: Market | None = None,
        stack: str = "",
        regions: Sequence[str] = (),
        max_hours: float | None = None,
        budget_usd: Decimal | None = None,
        disk_gb: int = 0,
    ) -> tuple[Stack, tuple[Offer, ...]]:
        """Stages 2 and 3 of a launch: the stack and the offers that fit, cheapest first. Free."""
        from cloudrun.plan import plan_launch
        from cloudrun.providers import load_provider

        return plan_launch(
            type=type,
            market=market,
            stack=stack,
            regions=tuple(regions),
            max_hours=max_hours,
            budget_usd=budget_usd,
            disk_gb=disk_gb,
            providers=lambda name: load_provider(name, self.settings),
        )

    def offers(
        self,
        *,
        gpu: str = "",
        min_gpu_memory_gib: float = 0,
        type: str = "",
        market: Market | None = None,
        regions: Sequence[str] = (),
    ) -> list[Offer]:
        """What could be rented, cheapest first; an unknown price comes last."""
        from cloudrun.plan import find_offers
        from cloudrun.providers import load_provider

        return find_offers(
            gpu=gpu,
            min_gpu_memory_gib=min_gpu_memory_gib,
            type=type,
            market=market,
            regions=tuple(regions),
            providers=lambda name: load_provider(name, self.settings),
        )

    def machines(self, *, all: bool = False) -> list[Machine]:
        """Machines as their providers see them now; with `all` also those that ended."""
        known = self.store.list_machines(all=all)
        if not known:
            return []
        from cloudrun.machines import heal

        ctx = self.context()
        seen = [machine if machine.state.gone else heal(ctx, machine) for machine in known]
        return [machine for machine in seen if all or not machine.state.gone]

    def machine(self, name: str) -> Machine:
        """By name, id or unique prefix, as the store has it. Raises NotFound, Ambiguous."""
        return self.store.find_machine(name)

    def machine_cost_usd(self, machine: Machine) -> Decimal | None:
        """What the machine cost so far; None while a price is unknown."""
        from cloudrun import ledger

        since = machine.launched_at  # an earlier machine may have had the same name
        charges = [
            charge
            for charge in self.store.list_charges(machine=machine.name)
            if since is None or charge.opened_at >= since
        ]
        return ledger.run_cost_usd(charges, now=datetime.now(UTC))

    def start(self, name: str) -> Machine:
        """Start a stopped machine and wait until it answers."""
        from cloudrun import machines

        return machines.start(self.context(), self.machine(name))

    def stop(self, name: str) -> Machine:
        """Turn a machine off, disk kept. Idempotent."""
        from cloudrun import machines

        return machines.stop(self.context(), self.machine(name))

    def terminate(self, name: str) -> Machine:
        """End a machine and free all that was made for it. Idempotent; outputs at home stay."""
        from cloudrun import rent

        return rent.let_go(self.context(), self.machine(name))

    def extend(self, name: str, *, hours: float) -> Machine:
        """Move the machine's deadline; its own guard is told."""
        from cloudrun import machines

        return machines.extend(self.context(), self.machine(name), hours=hours)

    def scan_host_key(self, target: str) -> str:
        """The key line that user@host[:port] shows now, for the user to confirm."""
        from cloudrun import machines

        return machines.attachable(self.context()).scan_host_key(target)

    def attach_machine(self, name: str, target: str, *, host_key: str, key_path: str = "") -> Machine:
        """Make a host that exists already usable as machine `name`."""
        from cloudrun import machines

        return machines.attach(self.context(), name, target, host_key=host_key, key_path=key_path)

    def shell(self, name: str) -> Shell:
        """That machine's command line; it connects on first use."""
        return self.context().connect(self.machine(name))

    def adopt(self, *, provider: str = "", on_event: OnEvent | None = None) -> list[Machine]:
        """Rebuild the store from the providers, the machines' own records and the run folders."""
        from cloudrun import audit
        from cloudrun.providers import provider_names

        names = (provider,) if provider else tuple(provider_names())
        return audit.adopt(self.context(on_event=on_event), names)

    def _connect(self, name: str) -> None:
        with suppress(CloudrunError):
            self.shell(name).run("true", timeout_s=CONNECT_TIMEOUT_S)

    def _costed(self, run: Run) -> Run:
        from cloudrun import ledger

        cost = ledger.cost_so_far_usd(self.store, run, now=datetime.now(UTC))
        return replace(run, cost_usd=cost)
