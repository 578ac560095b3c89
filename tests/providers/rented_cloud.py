"""What tests of all clouds have in common: an account at a double, and machines launched there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from delays import delay
from waiting import until

from cloudrun.models import Guard, LaunchSpec, Machine, MachineState, Offer, Stack
from cloudrun.providers.base import Provider


@dataclass
class RentedCloud(ABC):
    """The double of a cloud."""

    double: Any

    @abstractmethod
    def provider(self) -> Provider:
        """The provider as a new process has it."""

    @abstractmethod
    def spec(self, **more: Any) -> LaunchSpec:
        """What to launch where nothing else is said, by the fields of a LaunchSpec."""

    def launch(self, *names: str, **more: Any) -> Machine:
        return self.provider().launch(self.spec(*names, **more))

    def launch_running(self, *names: str, **more: Any) -> Machine:
        return self.until(self.launch(*names, **more), MachineState.RUNNING)

    def until(self, machine: Machine, state: MachineState) -> Machine:
        """The machine as it is described once it has that state."""
        provider = self.provider()
        return until(lambda: provider.describe(machine), lambda seen: seen.state is state)

    def delay(self, **seconds: float) -> None:
        """From now on the double takes so long for that."""
        delay(self.double, **seconds)


def a_spec(name: str, offer: Offer, stack: Stack, *, token: str = "", **more: Any) -> LaunchSpec:
    """For three hours, unless a guard is given."""
    issued_at = datetime.now(UTC)
    guard = Guard(issued_at=issued_at, deadline_at=issued_at + timedelta(hours=3))
    return LaunchSpec(
        token=token or f"token-of-{name}", name=name, offer=offer, stack=stack, **{"guard": guard, **more}
    )
