"""A home of its own for each test, its store, and the command line in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import Cli, Said, say

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.store import Store


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLOUDRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("CLOUDRUN_CURRENCY", "CLOUDRUN_RATE_USD_JPY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*words: str) -> Said:
        return say(capsys, *words)

    return call


@pytest.fixture
def client(home: Path) -> Iterator[Client]:
    made = Client(load_settings())
    yield made
    made.store.close()


@pytest.fixture
def store(client: Client) -> Store:
    return client.store
