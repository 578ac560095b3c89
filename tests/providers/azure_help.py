"""The Azure provider under test: its machines, the double behind it, and waiting for what the double does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import pytest

from cloudrun.config import Settings
from cloudrun.models import Guard, LaunchSpec, Machine, MachineState, Market, Offer, Stack
from cloudrun.providers.azure import AzureProvider
from cloudrun.providers.azure.session import Session
from cloudrun.sim.azure import AzureDouble, Delays
from cloudrun.sim.machine import MachineHost

REGION = "eastus"
TYPE = "Standard_NC4as_T4_v3"
HERE = "203.0.113.7"  # this computer's address, as its service tells it (RFC 5737, for documentation)
QUICK = Delays(
    poll_s=0.01,
    network_s=0.02,
    disk_s=0.02,
    group_s=0.02,
    creating_s=0.05,
    starting_s=0.05,
    deallocating_s=0.05,
    deleting_s=0.05,
    grace_s=0.0,
)
STACK = Stack("none", images=(("azure", "ubuntu-22.04-gen2"),))
SPOT = Offer(
    provider="azure",
    region=REGION,
    type=TYPE,
    market=Market.SPOT,
    price_per_hour_usd=Decimal("0.1052"),
    gpu="T4",
    gpu_count=1,
    gpu_memory_gib=16.0,
    gpu_capability=7.5,
)
ON_DEMAND = replace(SPOT, market=Market.ON_DEMAND, price_per_hour_usd=Decimal("0.526"))
CPU = Offer(
    provider="azure",
    region=REGION,
    type="Standard_D2s_v3",
    market=Market.ON_DEMAND,
    price_per_hour_usd=Decimal("0.096"),
)
GONE = ("", "deleted")  # states of machines in the double that cost nothing any more

T = TypeVar("T")


class AddressService:
    """What tells this computer its address; a test may let it tell another one."""

    def __init__(self) -> None:
        self.address = HERE
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(f"{service.address}\n".encode())

            def log_message(self, *_: object) -> None:
                """Nothing: the output is the test's."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Cloud:
    """The double, and providers of one home folder."""

    double: AzureDouble
    settings: Settings
    here: AddressService
    clients: dict[str, Any] = field(default_factory=dict)  # making one costs more than a call

    def provider(self, *, home: Path | None = None) -> AzureProvider:
        """The provider as a new process has it, of this computer or (another home) of another one."""
        provider = AzureProvider(replace(self.settings, home=home) if home else self.settings)
        provider._session._clients = self.clients
        return provider

    def session(self) -> Session:
        """A session, to see what is really there."""
        return self.provider()._session

    def launch(self, name: str = "t4", *, token: str = "", **more: Any) -> Machine:
        return self.provider().launch(spec(name, token=token, **more))

    def launch_running(self, name: str = "t4", *, token: str = "", **more: Any) -> Machine:
        machine = self.launch(name, token=token, **more)
        return self.until(machine, MachineState.RUNNING)

    def until(self, machine: Machine, state: MachineState) -> Machine:
        """The machine as it is described once it has that state."""
        provider = self.provider()
        return until(lambda: provider.describe(machine), lambda seen: seen.state is state)

    def until_empty(self) -> None:
        """Until nothing is left: no group, no resource."""
        until(self.everything, lambda found: not found)

    def everything(self) -> list[str]:
        """Names of all resource groups, and of all resources."""
        client = self.session().resources
        groups = [str(each["name"]) for each in client.resource_groups.list()]
        return groups + [str(each["name"]) for each in client.resources.list()]

    def body(self, kind: str, machine: Machine, suffix: str = "") -> dict[str, Any]:
        """One of a machine's parts as the double shows it; kind e.g. network_interfaces."""
        words = machine.id.split("/")
        session = self.session()
        operations = getattr(session.compute, kind, None) or getattr(session.network, kind)
        found: dict[str, Any] = operations.get(words[4], words[-1] + suffix).as_dict()
        return found

    def delay(self, **seconds: float) -> None:
        """From now on the double takes so long for that."""
        world = self.double._running()
        world.delays = replace(world.delays, **seconds)

    def alive(self) -> list[str]:
        """Ids of all machines of the subscription that are not gone."""
        return [each["id"].lower() for each in self.double.instances() if each["state"] not in GONE]

    def calls(self) -> Counter[str]:
        """How often each operation was called since the last time this was asked."""
        counted = Counter(call.operation for call in self.double.calls())
        self.double.forget_calls()
        return counted


@contextmanager
def open_cloud(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, host: MachineHost | None = None, ssh_port: int = 22
) -> Iterator[Cloud]:
    """A subscription of the test's own, and nothing of this computer's own Azure configuration."""
    here = AddressService()
    try:
        with AzureDouble(host, folder=home.parent / "azure-double", delay_s=QUICK) as double:
            use_account(monkeypatch, double, home)
            settings = Settings(
                home=home,
                ssh_port=ssh_port,
                poll_s=0.2,
                address_url=here.url,
                azure_endpoint=double.url,
                azure_prices_url=double.environment()["CLOUDRUN_AZURE_PRICES_URL"],
                sim=home.parent / "sim",
            )
            cloud = Cloud(double, settings, here)
            try:
                yield cloud
            finally:
                for client in cloud.clients.values():
                    client.close()
    finally:
        here.close()


def use_account(monkeypatch: pytest.MonkeyPatch, double: AzureDouble, home: Path) -> None:
    """The variables that the double wants, and no `az login`."""
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(home / "no-azure"))
    for name in ("AZURE_USERNAME", "AZURE_PASSWORD", "AZURE_CLIENT_CERTIFICATE_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in double.environment().items():
        monkeypatch.setenv(name, value)


def spec(name: str = "t4", *, token: str = "", offer: Offer = SPOT, **more: Any) -> LaunchSpec:
    issued_at = datetime.now(UTC)
    guard = Guard(issued_at=issued_at, deadline_at=issued_at + timedelta(hours=3))
    return LaunchSpec(
        token=token or f"token-of-{name}", name=name, offer=offer, stack=STACK, **{"guard": guard, **more}
    )


def until(ask: Callable[[], T], enough: Callable[[T], bool], *, within_s: float = 20.0) -> T:
    give_up_at = time.monotonic() + within_s
    while not enough(found := ask()):
        assert time.monotonic() < give_up_at, found
        time.sleep(0.02)
    return found
