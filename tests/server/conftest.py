"""The embedded server, started as users start it: through the local provider."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "remote"))  # for `servers`

from servers import EmbeddedServer

from cloudrun.remote.connect import connect
from cloudrun.remote.shell import Shell


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_SECRET_ACCESS_KEY", "hush")  # in the launching process, as a user's may be
    patch.setenv("AZURE_CLIENT_SECRET", "hush")
    patch.setenv("MY_TOKEN", "hush")
    patch.setenv("LC_TIME", "C")
    server = EmbeddedServer(tmp_path_factory.mktemp("served"))
    patch.undo()
    yield server
    server.end()


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("own"))
    yield server
    server.end()


@pytest.fixture
def shell(embedded: EmbeddedServer) -> Shell:
    return connect(embedded.address, embedded.settings, machine="box")
