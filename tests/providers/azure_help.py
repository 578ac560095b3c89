"""The Azure provider under test: its machines, the double behind it, and waiting for what the double does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from quick_azure import QUICK
from rented_cloud import RentedCloud, a_spec
from waiting import until

from cloudrun.config import Settings
from cloudrun.models import LaunchSpec, Machine, Market, Offer, Stack
from cloudrun.providers.azure import AzureProvider
from cloudrun.providers.azure.session import Session
from cloudrun.sim.azure import AzureDouble
from cloudrun.sim.machine import MachineHost

REGION = "eastus"
TYPE = "Standard_NC4as_T4_v3"
HERE = "203.0.113.7"  # this computer's address, as its service tells it (RFC 5737, for documentation)
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
class Cloud(RentedCloud):
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

    def spec(self, name: str = "t4", **more: Any) -> LaunchSpec:
        return spec(name, **more)

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
    return a_spec(name, offer, STACK, token=token, **more)
