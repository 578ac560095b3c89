"""The rehearsal cloud for tests of the road on rented machines: begun once, left empty by every test."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import quick_boto  # noqa: F401  # for what it does

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "road"))  # for its makers of jobs

from rented_help import REGIONS, RentedCloud, wait_for

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.providers.aws.session import Session
from cloudrun.sim import daemon


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RentedCloud]:
    folder = tmp_path_factory.mktemp("sim")
    record = daemon.up(folder)
    yield RentedCloud(record)
    daemon.down(folder)


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cloud said of its offers, kept between tests as a home keeps it between commands."""
    return tmp_path_factory.mktemp("answers") / "cache"


@pytest.fixture
def cloud(
    rehearsal: RentedCloud, answers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[RentedCloud]:
    """This process talks to the rehearsal cloud; its home is the test's own."""
    cache = tmp_path / "home" / "cache"
    if answers.is_dir():
        shutil.copytree(answers, cache)
    for name, value in rehearsal.record.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLOUDRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLOUDRUN_POLL_S", "0.2")
    monkeypatch.setattr(Session, "regions", lambda _session: list(REGIONS))  # of 17
    rehearsal.calm()
    yield rehearsal
    rehearsal.calm()
    sweeper = Client(load_settings())
    sweeper.adopt()
    sweeper.terminate(*(machine.name for machine in sweeper.store.list_machines()))
    wait_for(lambda: rehearsal.live() == [])  # a test left machines behind that nobody knows
    if not answers.is_dir() and cache.is_dir():
        shutil.copytree(cache, answers)


@pytest.fixture
def client(cloud: RentedCloud) -> Client:  # the cloud's variables are set by then
    return Client(load_settings())
