from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_home import HORSES, write_tree

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "agent"))  # for `localmachine`
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "road"))  # for `faults`

from localmachine import LocalShell, local_machine

from cloudrun.client import Client
from cloudrun.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", poll_s=0.2)


@pytest.fixture
def horses(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "images", HORSES)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    made = Client(settings)
    yield made
    local = made.provider("local")
    for machine in local.list_machines():
        local.terminate(machine)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[LocalShell]:
    with local_machine(tmp_path) as shell:
        yield shell
