"""A job that resumes, and a machine that goes down and comes back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from localmachine import LocalShell, pids_of, start_script, wait_for

from cloudrun.remote import process

KEY = "aaaa2222.1"
AGENT = Path(__file__).parents[2] / "cloudrun" / "agent" / "agent.py"

# Counts its starts in its checkpoint, and ends well once there is a file `go`.
JOB = """
exec 2>/dev/null  # where sh says "Terminated" of a sleep that a shutdown ended
trap 'echo saving; exit 75' TERM
cd "$CLOUDRUN_OUTPUT_DIR"
n=$(cat "$CLOUDRUN_RESUME_FROM/n" 2>/dev/null || echo 0)
n=$((n + 1)); mkdir -p checkpoint; echo $n > n.new; mv n.new checkpoint/n
echo '{"epoch": '$n'}' >> metrics.jsonl
echo start $n
until [ -e "$HOME/go" ]; do sleep 0.02; done
echo done
"""


def start_job(machine: LocalShell, **fields: object) -> process.ProcessStatus:
    """Started, and past its checkpoint."""
    status = start_script(machine, JOB, resume="checkpoint", **fields)
    wait_for(lambda: log_of(machine).endswith(b"start 1\n"))
    return status


def power_off(machine: LocalShell) -> None:
    """Every process of the machine is gone at once, as when the plug is pulled: none sees another end."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids_of(machine.home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    wait_for(lambda: not pids_of(machine.home))


def shut_down(machine: LocalShell) -> None:
    """As systemd does it: SIGTERM to all; the plug is pulled later."""
    for pid in pids_of(machine.home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def boot(machine: LocalShell, agent: Path = AGENT, **policy: object) -> None:
    """What the boot script does. The same policy each time, unless another is given."""
    path = machine.home / "policy.json"
    if policy or not path.exists():
        path.write_text(json.dumps({"issued_at": time.time(), "deadline_at": None, "idle_s": 3600} | policy))
    argv = [sys.executable, "-I", "-S", str(agent), "boot", "--policy", str(path)]
    done = subprocess.run(argv, env=machine.env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def go(machine: LocalShell) -> None:
    (machine.home / "go").touch()


def log_of(machine: LocalShell, key: str = KEY) -> bytes:
    return (machine.run_dir(key) / "log").read_bytes()


def state_of(machine: LocalShell, key: str = KEY) -> dict:
    return json.loads((machine.run_dir(key) / "state.json").read_text())
