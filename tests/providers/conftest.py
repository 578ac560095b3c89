"""Providers under contract. Another provider joins by a Case in CASES."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "remote"))  # for `servers`

from servers import OpenSshServer, launch

from cloudrun.config import Settings
from cloudrun.models import Machine
from cloudrun.providers.attached import AttachedProvider
from cloudrun.providers.base import Provider
from cloudrun.providers.local import LocalProvider


@dataclass
class Case:
    """A provider and how a machine of it comes to be, by name."""

    provider: Provider
    make: Callable[[str], Machine]
    outlives_terminate: bool  # the computer behind it stays when the machine is ended


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def local(settings: Settings) -> Iterator[LocalProvider]:
    provider = LocalProvider(settings)
    yield provider
    for machine in provider.list_machines():
        provider.terminate(machine)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSshServer]:
    server = OpenSshServer(tmp_path_factory.mktemp("host"))
    yield server
    server.end()


@pytest.fixture
def attached(settings: Settings) -> AttachedProvider:
    return AttachedProvider(settings)


@pytest.fixture(params=["local", "attached"])
def case(request: pytest.FixtureRequest) -> Case:
    provider = request.getfixturevalue(request.param)
    if request.param == "local":
        return Case(provider, lambda name: launch(provider, name), outlives_terminate=False)
    host: OpenSshServer = request.getfixturevalue("host")
    return Case(provider, lambda name: attach(provider, name, host), outlives_terminate=True)


def attach(provider: AttachedProvider, name: str, host: OpenSshServer) -> Machine:
    address = host.address
    target = f"{address.user}@{address.host}:{address.port}"
    return provider.attach(
        name, target, host_key=provider.scan_host_key(target), key_path=str(address.key_path)
    )
