"""Providers under contract. Another provider joins by a branch of `case`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "remote"))  # for `servers`

from provider_cases import Case, attach
from servers import OpenSshServer, launch

from cloudrun.config import Settings
from cloudrun.providers.attached import AttachedProvider
from cloudrun.providers.local import LocalProvider


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
