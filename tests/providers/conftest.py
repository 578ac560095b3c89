"""Providers under contract. Another provider joins by a branch of `case`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "remote"))  # for `servers`

import aws_help
import azure_help
import quick_boto  # noqa: F401  # for what it does
from provider_cases import Case, attach, rent
from servers import OpenSshServer, launch

from cloudrun.config import Settings, load_settings
from cloudrun.providers.attached import AttachedProvider
from cloudrun.providers.azure.session import Session
from cloudrun.providers.local import LocalProvider
from cloudrun.sim.azure import AzureDouble
from cloudrun.sim.machine import MachineHost

SIM_SSH_PORT = 2022  # of machines on loopback addresses of their own; 22 may be somebody's
RENTED = {"aws": aws_help.CPU, "azure": azure_help.CPU}  # what a machine under contract costs


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


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[MachineHost]:
    """Where the doubles' machines boot: with a system of their own where this user is root."""
    host = MachineHost(tmp_path / "machines", ssh_port=SIM_SSH_PORT)
    yield host
    host.close()


@pytest.fixture
def aws(
    settings: Settings, machines: MachineHost, monkeypatch: pytest.MonkeyPatch
) -> Iterator[aws_help.Cloud]:
    """The rehearsal's account, whose machines boot."""
    with aws_help.open_cloud(settings.home, monkeypatch, host=machines, ssh_port=SIM_SSH_PORT) as cloud:
        yield cloud


@pytest.fixture
def azure(
    settings: Settings, machines: MachineHost, monkeypatch: pytest.MonkeyPatch
) -> Iterator[azure_help.Cloud]:
    """As `aws`, a subscription of Azure's."""
    with azure_help.open_cloud(settings.home, monkeypatch, host=machines, ssh_port=SIM_SSH_PORT) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureDouble]:
    """A subscription of Azure's for all tests of a file, which boots no machine."""
    with AzureDouble(folder=tmp_path_factory.mktemp("azure")) as double:
        yield double


@pytest.fixture
def session(double: AzureDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A client of `double` that has asked nothing yet."""
    azure_help.use_account(monkeypatch, double, tmp_path)
    monkeypatch.setenv("CLOUDRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLOUDRUN_SIM", str(tmp_path / "sim"))
    double.clear_faults()
    double.forget_calls()
    return Session(load_settings())


@pytest.fixture(params=["local", "attached", "aws", "azure"])
def case(request: pytest.FixtureRequest) -> Case:
    provider = request.getfixturevalue(request.param)
    if offer := RENTED.get(request.param):
        make = partial(rent, provider, offer=offer)
        return Case(provider.provider(), make, outlives_terminate=False, rents=True)
    if request.param == "local":
        return Case(provider, lambda name: launch(provider, name), outlives_terminate=False)
    host: OpenSshServer = request.getfixturevalue("host")
    return Case(provider, lambda name: attach(provider, name, host), outlives_terminate=True)
