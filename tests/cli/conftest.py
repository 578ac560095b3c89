"""The command line as a user has it, in this process: a home of its own, stdout and stderr apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cloudrun.cli import run
from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.models import Machine, MachineState, Market, Run, RunState, Stage

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Said:
    """What one command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


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
        capsys.readouterr()
        code = run(words)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

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


def a_run(**changes: Any) -> Run:
    """A run that succeeded a minute before NOW."""
    facts: dict[str, Any] = {
        "id": "8f3kq2zx",
        "job": "svhn_rcnn",
        "project": "svhn",
        "preset": "quick",
        "args": ("--epochs", "3"),
        "command": ("python3", "train.py"),
        "stack": "cpu-torch",
        "bundle": "ab" * 32,
        "outputs": "outputs",
        "state": RunState.SUCCEEDED,
        "stage": Stage.RELEASE,
        "submitted_at": datetime(2026, 3, 4, 11, 55, tzinfo=UTC),
        "started_at": datetime(2026, 3, 4, 11, 55, 5, tzinfo=UTC),
        "ended_at": datetime(2026, 3, 4, 11, 59, tzinfo=UTC),
        "machine": "bench",
        "exit_code": 0,
        "metric_name": "val_acc",
        "metric_value": 0.93125,
        "outputs_bytes": 1_234_567,
        "cost_usd": Decimal("0.0171"),
    }
    return Run(**{**facts, **changes})


def a_machine(**changes: Any) -> Machine:
    """A spot p2.xlarge that is up."""
    facts: dict[str, Any] = {
        "id": "i-0abc",
        "name": "p2-xlarge",
        "provider": "aws",
        "region": "us-east-1",
        "type": "p2.xlarge",
        "market": Market.SPOT,
        "state": MachineState.RUNNING,
        "stack": "cuda11-torch",
        "price_per_hour_usd": Decimal("0.27"),
        "launched_at": datetime(2026, 3, 4, 11, 0, tzinfo=UTC),
        "deadline_at": datetime(2026, 3, 4, 15, 0, tzinfo=UTC),
        "gpu": "Tesla K80",
        "gpu_count": 1,
        "gpu_memory_gib": 12.0,
    }
    return Machine(**{**facts, **changes})
