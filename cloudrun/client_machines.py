"""The verbs about machines, of the Python API. `Client` has them all; see there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from cloudrun.config import Settings
from cloudrun.errors import Refused
from cloudrun.events import OnEvent, ignore
from cloudrun.guard import IDLE_MINUTES, make_guard
from cloudrun.models import NO_OPTIONS, Guard, LaunchOptions, Machine, Market, Offer, OnPreempt, Stack
from cloudrun.runfiles import RunFiles
from cloudrun.store import Store

if TYPE_CHECKING:
    from cloudrun.audit_item import Item
    from cloudrun.context import Context
    from cloudrun.health import Finding
    from cloudrun.providers.base import Provider
    from cloudrun.remote.shell import Shell

NO_SECRETS: Mapping[str, str] = {}
Terms = ParamSpec("Terms")


def _terms_of(
    many: Callable[Concatenate[Any, int, Terms], object],
) -> Callable[[Callable[..., Machine]], Callable[Concatenate[Any, Terms], Machine]]:
    """Marks the verb for one machine: it takes what the verb for several takes, but no count."""

    def mark(one: Callable[..., Machine]) -> Callable[Concatenate[Any, Terms], Machine]:
        shape = inspect.signature(many)
        terms = [each for name, each in shape.parameters.items() if name != "count"]
        vars(one)["__signature__"] = shape.replace(parameters=terms, return_annotation="Machine")
        return one

    return mark


class MachineVerbs:
    """launch, list, start, stop, terminate, extend, resize, reach, attach and adopt machines."""

    settings: Settings
    store: Store
    _providers: dict[str, Provider]

    def provider(self, name: str) -> Provider:
        """The account at that provider, made once: its connections are used again. Raises ProviderError."""
        if name not in self._providers:
            from cloudrun.providers import load_provider

            self._providers[name] = load_provider(name, self.settings)
        return self._providers[name]

    def context(self, *, on_event: OnEvent | None = None, secrets: Mapping[str, str] = NO_SECRETS) -> Context:
        """What the metered stages need; made anew for each walk."""
        from cloudrun.context import Context
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
            provider=self.provider,
            connect=shell_of,
            on_event=on_event or ignore,
            secrets=secrets,
        )

    def launch_many(
        self,
        count: int,
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
        options: LaunchOptions = NO_OPTIONS,
        retry_until_up: bool = False,
        on_event: OnEvent | None = None,
    ) -> list[Machine]:
        """As launch, for several of one kind, called NAME-1 to NAME-count; all of them or none. Each has the
        whole budget to itself. Raises Refused for a count below 1."""
        from cloudrun import machines
        from cloudrun.attempts import hourly_usd

        if count < 1:
            raise Refused(f"cannot launch {count} machines", hint="use --count 1 or more")
        if market is Market.SPOT and options.on_preempt is None:
            options = replace(options, on_preempt=OnPreempt.STOP)

        found, candidates = self.plan_launch(
            type=type,
            market=market,
            stack=stack,
            regions=regions,
            max_hours=max_hours,
            budget_usd=budget_usd,
            disk_gb=disk_gb,
        )

        self.check_launch(
            candidates, count=count, keep=keep, max_hours=max_hours, budget_usd=budget_usd, disk_gb=disk_gb
        )

        def guard_of(offer: Offer) -> Guard:
            return make_guard(
                now=datetime.now(UTC),
                max_hours=max_hours,
                budget_usd=budget_usd,
                price_per_hour_usd=hourly_usd(offer, disk_gb),
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
            count=count,
            options=options,
            retry_until_up=retry_until_up,
        )

    @_terms_of(launch_many)
    def launch(self, **terms: Any) -> Machine:
        """A machine that stays until its guard, or you, end it. Blocks until it is ready for runs.

        A spot machine that is to stay keeps its disk when the provider takes it, and can be stopped,
        unless `options` say otherwise.
        """
        return self.launch_many(1, **terms)[0]

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
        from cloudrun.images_own import prefer
        from cloudrun.plan import plan_launch

        found, candidates = plan_launch(
            type=type,
            market=market,
            stack=stack,
            regions=tuple(regions),
            max_hours=max_hours,
            budget_usd=budget_usd,
            disk_gb=disk_gb,
            providers=self.provider,
        )
        return found, prefer(self.settings, found, candidates)

    def check_launch(
        self,
        candidates: Sequence[Offer],
        *,
        count: int = 1,
        keep: bool = False,
        max_hours: float | None = None,
        budget_usd: Decimal | None = None,
        disk_gb: int = 0,
    ) -> tuple[str, ...]:
        """Whether the launch fits into the month's budget: the warnings. Raises Refused where it does not."""
        if not self.settings.budgets or all(offer.market is Market.OWN for offer in candidates):
            return ()
        from cloudrun import budget
        from cloudrun.spending import Spending

        each = Spending(max_hours, budget_usd, disk_gb, keep=keep).worst_case_usd(candidates)
        worst = None if each is None else each * count
        return budget.check(self.store, self.settings.budgets, worst, now=datetime.now(UTC))

    def limits(self, candidates: Sequence[Offer]) -> tuple[str, ...]:
        """What on the first of these would not end by itself, for the eye of whoever decides."""
        from cloudrun import cautions

        return cautions.limits(candidates, self.provider)

    def offers(
        self,
        *,
        gpus: Sequence[str] = (),
        min_gpu_memory_gib: float = 0,
        type: str = "",
        market: Market | None = None,
        regions: Sequence[str] = (),
        max_price_per_hour_usd: Decimal | None = None,
        currency: str = "",
    ) -> list[Offer]:
        """What could be rented, cheapest first; an unknown price comes last, and passes no maximum.

        currency: where a provider quotes prices in this one itself, its offers have them too."""
        from cloudrun.plan import find_offers

        return find_offers(
            gpus=tuple(gpus),
            min_gpu_memory_gib=min_gpu_memory_gib,
            type=type,
            market=market,
            regions=tuple(regions),
            max_price_per_hour_usd=max_price_per_hour_usd,
            currency=currency,
            providers=self.provider,
        )

    def machines(self, *, all: bool = False) -> list[Machine]:
        """Machines as their providers see them now; with `all` also those that ended."""
        known = self.store.list_machines(all=all)
        if not known:
            return []
        from cloudrun.machines import refresh_all

        return [each for each in refresh_all(self.context(), known) if all or not each.state.gone]

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

    def start(self, name: str, *, on_event: OnEvent | None = None) -> Machine:
        """Start a stopped machine and wait until it answers. Raises Refused where the month's budget does not
        reach for it."""
        from cloudrun import machines

        return machines.start(self.context(on_event=on_event), self.machine(name))

    def stop(self, name: str) -> Machine:
        """Turn a machine off, disk kept. Idempotent."""
        from cloudrun import machines

        return machines.stop(self.context(), self.machine(name))

    def terminate(self, *names: str) -> list[Machine]:
        """End machines and free all that was made for them. Idempotent; outputs at home stay."""
        from cloudrun import machines

        return machines.terminate(self.context(), [self.machine(name) for name in names])

    def resize_disk(self, name: str, *, disk_gb: int, disk: str = "") -> Machine:
        """Make a machine's disk bigger, and its file system with it (blocking). Idempotent.

        `disk` names another one that is attached to it; what is on that one is yours to grow.
        """
        from cloudrun import machines

        return machines.resize_disk(self.context(), self.machine(name), disk_gb, disk)

    def extend(self, name: str, *, hours: float, on_event: OnEvent | None = None) -> Machine:
        """Move the machine's deadline; its own guard is told. Raises Refused where the month's budget does
        not reach so far."""
        from cloudrun import machines

        return machines.extend(self.context(on_event=on_event), self.machine(name), hours=hours)

    def scan_host_key(self, target: str) -> str:
        """The key line that user@host[:port] shows now, for the user to confirm."""
        from cloudrun import machines

        return machines.attachable(self.context()).scan_host_key(target)

    def attach_machine(self, name: str, target: str, *, host_key: str, key_path: str = "") -> Machine:
        """Make a host that exists already usable as machine `name`."""
        from cloudrun import machines

        return machines.attach(self.context(), name, target, host_key=host_key, key_path=key_path)

    def examine(
        self, name: str, *, stack: str = "", mend: bool = False, on_event: OnEvent | None = None
    ) -> list[Finding]:
        """What is right and wrong with a machine (blocking); with `mend`, what can be mended is.

        stack: the machine's own where that is a file. Raises NotFound for one that is not there."""
        from cloudrun import doctor

        ctx = self.context(on_event=on_event)
        return doctor.examine(ctx, self.machine(name), stack=stack, mend=mend)

    def stack_lock(self, run: str) -> Mapping[str, str]:
        """What the machine of the run's newest attempt held when the run started there: driver, CUDA, GPU,
        Python, frameworks, packages as apt:NAME. Empty where it did not start, or nothing was recorded."""
        locks = RunFiles(self.settings, self.store.find_run(run).id).stack_locks()
        return locks[max(locks, key=int)] if locks else {}

    def shell(self, name: str) -> Shell:
        """That machine's command line; it connects on first use."""
        return self.context().connect(self.machine(name))

    def reach(self, name: str) -> Shell:
        """That machine's command line, connected (blocking). Where a firewall lets in another address than
        this computer's of now, that is changed. Raises what stands in the way."""
        from cloudrun import access

        machine = self.machine(name)
        return self.shell(name) if machine.market is Market.OWN else access.reach(self.context(), machine)

    def adopt(self, *, provider: str = "", on_event: OnEvent | None = None) -> list[Machine]:
        """Rebuild the store from the providers, the machines' own records and the run folders."""
        from cloudrun import adopt

        return adopt.adopt(self.context(on_event=on_event), _providers(provider))

    def audit(
        self, *, provider: str = "", everything: bool = False, on_event: OnEvent | None = None
    ) -> list[Item]:
        """Everything of ours at the providers, with what is wrong with it (blocking); without a provider also
        what belongs to nothing at home. Changes nothing."""
        from cloudrun import audit

        ctx = self.context(on_event=on_event)
        return audit.audit(ctx, _providers(provider), home=not provider, everything=everything)

    def fix(self, items: Sequence[Item], *, on_event: OnEvent | None = None) -> Iterator[tuple[Item, str]]:
        """Do what the cures of an audit say; each item with "" or why it could not be done (blocking)."""
        from cloudrun import audit

        return audit.fix(self.context(on_event=on_event), items)


def _providers(name: str) -> tuple[str, ...]:
    from cloudrun.providers import provider_names

    return (name,) if name else tuple(provider_names())
