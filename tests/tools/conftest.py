"""The tools as a user has them: a home and a current folder of their own, stdout and stderr apart."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudrun.cli import run

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path[:0] = [str(JOBS)]  # jobs/shared is imported as the jobs do


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; no screen, no clipboard, 100 columns."""
    monkeypatch.setenv("CLOUDRUN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def tool(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Answer]:
    def call(*words: str, stdin: bytes = b"") -> Answer:
        stream: Any = io.TextIOWrapper(io.BytesIO(stdin))
        monkeypatch.setattr("sys.stdin", stream)
        capsys.readouterr()
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call
