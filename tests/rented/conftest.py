"""The rehearsal cloud for tests of the road on rented machines: begun once, left empty by every test."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import quick_boto  # noqa: F401  # for what it does

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "road"))  # for its makers of jobs

from rehearsing import rehearsing, staying
from rented_help import RentedCloud

from cloudrun.client import Client
from cloudrun.config import load_settings


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RentedCloud]:
    with rehearsing(tmp_path_factory.mktemp("sim")) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cloud said of its offers, kept between tests as a home keeps it between commands."""
    return tmp_path_factory.mktemp("answers") / "cache"


@pytest.fixture
def cloud(
    rehearsal: RentedCloud, answers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[RentedCloud]:
    """This process talks to the rehearsal cloud; its home is the test's own."""
    home = tmp_path / "home"
    cache = home / "cache"
    if answers.is_dir():
        shutil.copytree(answers, cache)
    with staying(rehearsal, home, monkeypatch):
        yield rehearsal
    if not answers.is_dir() and cache.is_dir():
        shutil.copytree(cache, answers)


@pytest.fixture
def client(cloud: RentedCloud) -> Client:  # the cloud's variables are set by then
    return Client(load_settings())
