"""The tools as a user has them: a home and a current folder of their own, stdout and stderr apart."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import Cli, Said, say

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path[:0] = [str(JOBS)]  # jobs/shared is imported as the jobs do


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
def tool(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    def call(*words: str, stdin: bytes = b"") -> Said:
        stream: Any = io.TextIOWrapper(io.BytesIO(stdin))
        monkeypatch.setattr("sys.stdin", stream)
        return say(capsys, *words)

    return call
