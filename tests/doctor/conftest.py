"""One rented machine of the rehearsal, made ready for CUDA 8 and Theano, that the tests break and mend."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rented"))  # for its way of waiting

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.models import Machine, Market
from cloudrun.sim import daemon, namespace
from cloudrun.sim.packages import missing


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The variables of a home of its own, and of a rehearsal of its own."""
    if why_not := namespace.missing() or missing():
        pytest.skip(f"machines that can be broken: {why_not}")
    folder = tmp_path_factory.mktemp("doctor")
    record = daemon.up(folder / "sim")
    yield {
        **record.environment(),
        "CLOUDRUN_HOME": str(folder / "home"),
        "CLOUDRUN_POLL_S": "0.2",
    }
    daemon.down(folder / "sim")


@pytest.fixture(scope="session")
def k80(environment: Mapping[str, str]) -> Machine:
    with pytest.MonkeyPatch.context() as patch:
        made = client_with(environment, patch)
        return made.launch(type="p2.xlarge", market=Market.SPOT, stack="cuda8-theano", name="k80", disk_gb=10)


@pytest.fixture
def client(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Client:
    return client_with(environment, monkeypatch)


def client_with(environment: Mapping[str, str], patch: pytest.MonkeyPatch) -> Client:
    for name, value in environment.items():
        patch.setenv(name, value)
    return Client(load_settings())
