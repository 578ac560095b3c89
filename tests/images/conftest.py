"""The rehearsal's machines and clouds, for images of one's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))  # for machines
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rented"))  # for the rehearsal cloud
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "providers"))  # for accounts

import aws_help
import azure_help
from image_cases import ImageCase, aws_case, azure_case

from cloudrun.sim.machine import MachineHost

SIM_SSH_PORT = 20027  # of machines on loopback addresses of their own; 22 may be somebody's


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[MachineHost]:
    """Where the doubles' machines boot: with a system of their own where this user is root."""
    host = MachineHost(tmp_path / "machines", ssh_port=SIM_SSH_PORT)
    yield host
    host.close()


@pytest.fixture
def aws(tmp_path: Path, machines: MachineHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[aws_help.Cloud]:
    """The rehearsal's account, whose machines boot."""
    home = tmp_path / "home"
    with aws_help.open_cloud(home, monkeypatch, host=machines, ssh_port=SIM_SSH_PORT) as cloud:
        cloud.delay(imaging_s=0.05)
        yield cloud


@pytest.fixture
def azure(
    tmp_path: Path, machines: MachineHost, monkeypatch: pytest.MonkeyPatch
) -> Iterator[azure_help.Cloud]:
    """As `aws`, a subscription of Azure's."""
    home = tmp_path / "home"
    with azure_help.open_cloud(home, monkeypatch, host=machines, ssh_port=SIM_SSH_PORT) as cloud:
        yield cloud


CASES = {"aws": aws_case, "azure": azure_case}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> ImageCase:
    """Every cloud that keeps machines' disks as images."""
    return CASES[request.param](request.getfixturevalue(request.param))
