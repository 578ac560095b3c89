"""Providers under contract. Another provider joins by a branch of `case`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "remote"))  # for `servers`

from aws_help import Cloud as AwsCloud
from aws_help import open_cloud as open_aws
from azure_help import Cloud as AzureCloud
from azure_help import open_cloud as open_azure
from provider_cases import Case, attach, rent_aws, rent_azure
from servers import OpenSshServer, launch

from cloudrun.config import Settings
from cloudrun.providers.attached import AttachedProvider
from cloudrun.providers.local import LocalProvider
from cloudrun.sim.machine import MachineHost

SIM_SSH_PORT = 2022  # of machines on loopback addresses of their own; 22 may be somebody's


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
def aws(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsCloud]:
    """The rehearsal's account, whose machines boot: with a system of their own where this user is root."""
    host = MachineHost(tmp_path / "machines", ssh_port=SIM_SSH_PORT)
    try:
        with open_aws(settings.home, monkeypatch, host=host, ssh_port=SIM_SSH_PORT) as cloud:
            yield cloud
    finally:
        host.close()


@pytest.fixture
def azure(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureCloud]:
    """As `aws`, a subscription of Azure's."""
    host = MachineHost(tmp_path / "machines", ssh_port=SIM_SSH_PORT)
    try:
        with open_azure(settings.home, monkeypatch, host=host, ssh_port=SIM_SSH_PORT) as cloud:
            yield cloud
    finally:
        host.close()


@pytest.fixture(params=["local", "attached", "aws", "azure"])
def case(request: pytest.FixtureRequest) -> Case:
    provider = request.getfixturevalue(request.param)
    if request.param == "aws":
        return Case(
            provider.provider(), lambda name: rent_aws(provider, name), outlives_terminate=False, rents=True
        )
    if request.param == "azure":
        return Case(
            provider.provider(), lambda name: rent_azure(provider, name), outlives_terminate=False, rents=True
        )
    if request.param == "local":
        return Case(provider, lambda name: launch(provider, name), outlives_terminate=False)
    host: OpenSshServer = request.getfixturevalue("host")
    return Case(provider, lambda name: attach(provider, name, host), outlives_terminate=True)
