"""One rented machine of the rehearsal, made ready for CUDA 8 and Theano, that the tests break and mend."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rented"))  # for its way of waiting

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.models import Machine, Market
from cloudrun.sim import daemon, namespace
from cloudrun.sim.packages import missing


@pytest.fixture(scope="package")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a home of its own, talking to a rehearsal of its own."""
    if why_not := namespace.missing() or missing():
        pytest.skip(f"machines that can be broken: {why_not}")
    folder = tmp_path_factory.mktemp("doctor")
    record = daemon.up(folder / "sim")
    with contextlib.ExitStack() as at_last, pytest.MonkeyPatch.context() as patch:
        at_last.callback(daemon.down, folder / "sim")
        for name, value in record.environment().items():
            patch.setenv(name, value)
        patch.setenv("CLOUDRUN_HOME", str(folder / "home"))
        patch.setenv("CLOUDRUN_POLL_S", "0.2")
        made = Client(load_settings())
        yield made
        made.terminate(*(machine.name for machine in made.machines()))


@pytest.fixture(scope="package")
def k80(client: Client) -> Machine:
    return client.launch(type="p2.xlarge", market=Market.SPOT, stack="cuda8-theano", name="k80", disk_gb=10)
