"""Bringing a local machine up: its keys, its address, its guard, its server."""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cloudrun.errors import BootFailed
from cloudrun.keys import save_text
from cloudrun.server.folder import FALLBACK_HOST, MachineFolder

BOOT_TIMEOUT_S = 60.0  # a start takes half a second; a computer under heavy load gets this long
LOG_TAIL_BYTES = 2000


def pick_host(token: str, *, bindable: Callable[[str], bool] | None = None) -> str:
    """A loopback address for the machine of that token, 127.1.0.1 or above; 127.0.0.1 where the
    system knows no others (macOS), which then are told apart by port."""
    first, second, third = hashlib.sha256(token.encode()).digest()[:3]
    host = f"127.{1 + first % 254}.{second}.{1 + third % 254}"
    return host if (bindable or _bindable)(host) else FALLBACK_HOST


def arm_guard(folder: MachineFolder, environment: Mapping[str, str]) -> None:
    """What a cloud machine's boot payload does: put the agent there and let it guard. Idempotent."""
    source = Path(__file__).parent.parent / "agent" / "agent.py"
    code = source.read_text(encoding="utf-8")
    digest = hashlib.sha256(code.encode()).hexdigest()[:16]
    folder.agent_base.mkdir(mode=0o700, exist_ok=True)
    agent = folder.agent_base / f"agent-{digest}.py"
    save_text(agent, code, mode=0o700)
    # Stamped now, by the one clock that both sides share: an older stamp would pass for a clock's error.
    stamped = json.loads(folder.policy.read_text()) | {"issued_at": time.time()}
    save_text(folder.policy, json.dumps(stamped))
    answer = subprocess.run(
        [sys.executable, str(agent), "guard", "--policy", str(folder.policy)],
        env=environment,
        cwd=folder.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOOT_TIMEOUT_S,
        check=False,
    )
    if answer.returncode != 0:
        raise BootFailed(
            f"the guard of {folder.path.name} did not start: {answer.stderr.strip()[-LOG_TAIL_BYTES:]}",
            hint=f"see {folder.path}; then launch again",
        )


def start_server(folder: MachineFolder, environment: Mapping[str, str]) -> None:
    """Start the server, detached from this process and its terminal, and return once it listens."""
    ready, told = os.pipe()
    try:
        with folder.log.open("ab") as log:
            server = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "cloudrun.server",
                    "--machine",
                    str(folder.path),
                    f"--ready-fd={told}",
                ],
                env=environment,
                cwd=folder.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(told,),
            )
    finally:
        os.close(told)
    server.returncode = 0  # it is to outlive us: Python need not wait for it, nor warn that it runs
    with open(ready, "rb") as answers:  # noqa: PTH123  # a file descriptor
        readable, _, _ = select.select([answers], [], [], BOOT_TIMEOUT_S)
        answer = answers.readline().decode().strip() if readable else "no answer"
    if answer != "ready":
        raise BootFailed(
            f"the machine {folder.path.name} did not start: {answer or _log_tail(folder)}",
            hint=f"see {folder.log}",
        )


def _bindable(host: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _log_tail(folder: MachineFolder) -> str:
    return folder.log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
