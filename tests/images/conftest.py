"""The rehearsal's machines and clouds, for images of one's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import quick_boto  # noqa: F401  # for what it does

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))  # for machines
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rented"))  # for the rehearsal cloud
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "providers"))  # for accounts

import aws_help
import azure_help
from image_cases import ImageCase, aws_case, azure_case
from rehearsing import rehearsing, staying
from rented_help import RentedCloud, wait_for

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.sim.machine import MachineHost

SMALL = """
description = "a file in the home folder"
source = "made for tests"
steps = ["30-theanorc"]
[theanorc]
"global.device" = "cpu"
[images]
aws = "ubuntu-22.04"
azure = "ubuntu-22.04-gen2"
"""
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


@pytest.fixture(scope="session")
def rehearsal_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RentedCloud]:
    with rehearsing(tmp_path_factory.mktemp("sim")) as cloud:
        yield cloud


@pytest.fixture
def cloud(
    rehearsal_cloud: RentedCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[RentedCloud]:
    """This process talks to the rehearsal cloud; its home is the test's own. Nothing is left by a test."""
    with staying(rehearsal_cloud, tmp_path / "home", monkeypatch, regions=("us-east-1", "us-west-2")):
        yield rehearsal_cloud
    keeper = Client(load_settings())
    for listed in keeper.own_images():
        keeper.delete_image(listed.image)
    wait_for(lambda: keeper.own_images() == [])


@pytest.fixture
def client(cloud: RentedCloud) -> Client:  # the cloud's variables are set by then
    return Client(load_settings())


@pytest.fixture
def stack(tmp_path: Path) -> str:
    """A stack of one's own that is quickly put on a machine, and takes no root."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)
