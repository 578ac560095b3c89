"""The machine of the agent's tests."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from localmachine import LocalShell, pids_of


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[LocalShell]:
    """A machine; whatever was left running on it is ended afterwards, by the ids of its own home."""
    home = tmp_path / "machine"
    home.mkdir()
    shell = LocalShell(home)
    yield shell
    for pid in pids_of(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
