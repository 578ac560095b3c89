"""Servers and shells. `server` and `shell` are shared by all tests of a kind and must be left well;
`own_server` and `own_shell` belong to one test, which may break them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from servers import EmbeddedServer, OpenSshServer

from cloudrun.config import Settings
from cloudrun.remote.connect import connect
from cloudrun.remote.shell import Shell

AnyServer = EmbeddedServer | OpenSshServer
KINDS = {"embedded": EmbeddedServer, "sshd": OpenSshServer}
COMBINATIONS = [
    pytest.param((server, shell), id=f"{shell}-{server}")
    for server in KINDS
    for shell in ("openssh", "paramiko")
]


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("embedded"))
    yield server
    server.end()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSshServer]:
    server = OpenSshServer(tmp_path_factory.mktemp("sshd"))
    yield server
    server.end()


@pytest.fixture(params=COMBINATIONS)
def combination(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def server(combination: tuple[str, str], request: pytest.FixtureRequest) -> AnyServer:
    return request.getfixturevalue(combination[0])  # type: ignore[no-any-return]


@pytest.fixture
def shell(server: AnyServer, combination: tuple[str, str]) -> Iterator[Shell]:
    yield from _shell(server, combination[1])


@pytest.fixture
def own_server(combination: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyServer]:
    server = KINDS[combination[0]](tmp_path_factory.mktemp("own"))
    yield server
    server.end()


@pytest.fixture
def own_shell(own_server: AnyServer, combination: tuple[str, str]) -> Iterator[Shell]:
    yield from _shell(own_server, combination[1])


@pytest.fixture
def shell_settings(server: AnyServer, combination: tuple[str, str]) -> Settings:
    return dataclasses.replace(server.settings, shell=combination[1])


def _shell(server: AnyServer, kind: str) -> Iterator[Shell]:
    shell = connect(server.address, dataclasses.replace(server.settings, shell=kind), machine="box")
    yield shell
    shell.close()
