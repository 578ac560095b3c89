"""The command line as a user has it, in this process: a home of its own, stdout and stderr apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commandline import Cli, Said, say

from cloudrun.client import Client
from cloudrun.config import load_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty CLOUDRUN_HOME, an empty current folder; machines that a test leaves are ended."""
    monkeypatch.setenv("CLOUDRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    if (tmp_path / "home" / "machines").exists():
        from cloudrun.providers import load_provider

        provider = load_provider("local", load_settings())
        for machine in provider.list_machines():
            provider.terminate(machine)


@pytest.fixture
def cli(home: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*words: str) -> Said:
        return say(capsys, *words)

    return call


@pytest.fixture
def client(home: Path) -> Client:
    return Client(load_settings())


@pytest.fixture
def make_job(home: Path) -> Callable[..., Path]:
    """A folder with a job of one line of shell: make_job("echo hello", metric="val_acc")."""

    def make(line: str, *, name: str = "tiny", resume: bool = False, metric: str = "") -> Path:
        folder = Path.cwd() / name
        folder.mkdir()
        (folder / "job.sh").write_text(line + "\n", encoding="utf-8")
        facts = [
            f'name = "{name}"',
            'command = ["sh", "job.sh"]',
            'stack = "none"',
            f"resume = {str(resume).lower()}",
        ]
        if metric:
            facts.append(f'metric = {{ name = "{metric}", direction = "max" }}')
        (folder / "job.toml").write_text("\n".join(facts) + "\n", encoding="utf-8")
        return folder

    return make
