"""Machines of the rehearsal that install from the rehearsal's own repositories."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))  # for its machines

from machine_help import Client, Rehearsal, need
from provisioning_help import APT, GPU, PIP, WHEEL

from cloudrun.sim.packages import PackageServer, missing


@pytest.fixture
def packages() -> PackageServer:
    if why_not := missing():
        pytest.skip(f"the rehearsal's repositories: {why_not}")
    return PackageServer(APT, PIP, [WHEEL])


@pytest.fixture
def rehearsal(packages: PackageServer, tmp_path: Path) -> Iterator[Rehearsal]:
    made = Rehearsal(tmp_path, need("namespace"), packages=packages)
    yield made
    made.host.close()


@pytest.fixture
def k80(rehearsal: Rehearsal) -> Client:
    """A machine with a GPU and no driver yet."""
    return rehearsal.boot(gpu=GPU)
