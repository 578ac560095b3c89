"""A provider that misbehaves on request: real local machines, refusals and preemptions like a cloud's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from cloudrun.config import Settings
from cloudrun.context import Context
from cloudrun.errors import NoCapacity
from cloudrun.models import LaunchSpec, Machine, MachineState, Market, Offer, Stack
from cloudrun.providers import load_provider
from cloudrun.providers.base import Need, Provider

SPOT = Market.SPOT


def offer(zone: str, price: str) -> Offer:
    return Offer("flaky", "moon-1", "k80.small", SPOT, Decimal(price), zone=zone)


class FlakyProvider:
    """Zones in `full` refuse; `take` preempts a machine the way a cloud does, without a word."""

    name = "flaky"

    def __init__(self, settings: Settings, *, full: Sequence[str] = ()) -> None:
        self.full = set(full)
        self.launched: list[str] = []
        self.taken: dict[str, datetime] = {}
        self._local: Provider = load_provider("local", settings)

    def offers(self, need: Need) -> list[Offer]:
        return [offer("moon-1a", "0.1"), offer("moon-1b", "0.2")]

    def find_image(self, stack: Stack, region: str) -> str:
        return ""

    def launch(self, spec: LaunchSpec) -> Machine:
        if spec.offer.zone in self.full:
            raise NoCapacity(f"no {spec.offer.type} left in {spec.offer.zone}")
        self.launched.append(spec.offer.zone)
        here = replace(spec.offer, provider="local", region="here", type="local")
        return self._as_ours(self._local.launch(replace(spec, offer=here)), spec)

    def describe(self, machine: Machine) -> Machine:
        if machine.name in self.taken:
            return replace(machine, state=MachineState.PREEMPTED, ended_at=self.taken[machine.name])
        seen = self._local.describe(machine)
        return replace(machine, state=seen.state, address=seen.address, ended_at=seen.ended_at)

    def terminate(self, machine: Machine) -> None:
        self._local.terminate(machine)

    def list_machines(self) -> list[Machine]:
        return self._local.list_machines()

    def take(self, machine: Machine) -> None:
        """Preempt: the machine is gone at once, with all that ran on it."""
        self.taken[machine.name] = datetime.now(UTC)
        self._local.terminate(machine)

    def _as_ours(self, machine: Machine, spec: LaunchSpec) -> Machine:
        return replace(machine, provider="flaky", zone=spec.offer.zone, market=SPOT)


def with_provider(ctx: Context, flaky: FlakyProvider) -> Context:
    """The same context, in which `flaky` is the provider of that name."""
    original = ctx.provider
    return replace(ctx, provider=lambda name: flaky if name == "flaky" else original(name))
