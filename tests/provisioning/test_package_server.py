"""The rehearsal's repositories leave nothing behind, however their server ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudrun.sim.packages import missing

KILLED = """
import os, signal
from cloudrun.sim.packages import PackageServer
server = PackageServer([("cuda-8-0", "8.0.61-1")], [])
server.rotate_key()
print(server.fingerprint, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
GONE_WITHIN_S = 60.0  # an agent that is told to end does so at once; a loaded computer may take longer


def processes_with(text: str) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # it has just ended
            continue
        found += [line] if text in line else []
    return found


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name leaves room for an agent's socket, of which the kernel takes 107 characters."""
    with tempfile.TemporaryDirectory(prefix="keys-") as folder:
        yield Path(folder)


@pytest.mark.skipif(bool(missing()), reason=f"the rehearsal's repositories: {missing()}")
@pytest.mark.skipif(sys.platform != "linux", reason="looks at Linux's /proc")
def test_no_agent_and_no_key_outlives_a_server_that_was_killed(short: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(short)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, len(done.stdout.strip())) == (-9, 40), done.stderr
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := processes_with(str(short))) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
    assert list(short.iterdir()) == []
