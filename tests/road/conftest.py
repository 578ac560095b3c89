"""A home in a temporary folder, small jobs, and a sweep that leaves no machine behind."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "remote"))  # for `servers`

from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.errors import CloudrunError

JobMaker = Callable[..., Path]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", poll_s=0.2)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    client = Client(settings)
    yield client
    sweep(settings)


@pytest.fixture
def make_job(tmp_path: Path) -> JobMaker:
    """A job folder with one Python file: make_job("print(1)", resume=True)."""

    def make(script: str, *, name: str = "tiny", resume: bool = False, metric: str = "") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "job.py").write_text(textwrap.dedent(script), encoding="utf-8")
        lines = [f'name = "{name}"', 'command = ["python3", "-u", "job.py"]', 'stack = "none"']
        lines.append(f"resume = {str(resume).lower()}")
        if metric:
            lines.append(f'metric = {{ name = "{metric}", direction = "max" }}')
        (folder / "job.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    return make


def sweep(settings: Settings) -> None:
    """End every local machine of this home, whether the store still knows it or not."""
    from cloudrun.providers import load_provider

    provider = load_provider("local", settings)
    for machine in provider.list_machines():
        try:
            provider.terminate(machine)
        except CloudrunError as error:
            raise AssertionError(f"could not end {machine.name}: {error}") from error
