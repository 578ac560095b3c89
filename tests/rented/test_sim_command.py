"""`cloudrun sim` as it is typed: up, env, a drill, preempt, down."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

OURS = ("AWS_", "AZURE_", "CLOUDRUN_", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def cloudrun(*words: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloudrun", *words],
        env={**CLEAN, "CLOUDRUN_HOME": str(home), **more},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    assert cloudrun("sim", "down", home=tmp_path / "home").returncode == 0


def test_from_up_to_down(home: Path) -> None:
    up = cloudrun("sim", "up", "--json", home=home)
    assert up.returncode == 0, up.stderr
    again = cloudrun("sim", "up", "--json", home=home)
    assert json.loads(again.stdout)["pid"] == json.loads(up.stdout)["pid"]
    shown = cloudrun("sim", "env", home=home).stdout
    done = subprocess.run(["sh", "-c", shown + "env"], env=CLEAN, capture_output=True, text=True, check=True)
    env = dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith(OURS))
    assert env == json.loads(cloudrun("sim", "env", "--json", home=home).stdout)

    inside = {name: value for name, value in env.items() if name != "CLOUDRUN_HOME"}
    rented = Path(env["CLOUDRUN_HOME"])
    drill = cloudrun("sim", "drill", "throttle", "--json", home=rented, **inside)
    assert drill.returncode == 0, drill.stdout + drill.stderr
    assert all(fact["ok"] for fact in json.loads(drill.stdout)["throttle"])

    launched = cloudrun(
        "launch", "--spot", "p2.xlarge", "--name", "k80", "--stack", "none", home=rented, **inside
    )
    assert launched.returncode == 0, launched.stderr
    assert "simulated" in launched.stderr
    taken = cloudrun(
        "sim", "preempt", "k80", "--notice-s", "0", "--action", "terminate", home=rented, **inside
    )
    assert taken.returncode == 0, taken.stderr
    status = json.loads(cloudrun("sim", "status", "--all", "--json", home=rented, **inside).stdout)
    assert "k80" in [each["tags"]["cloudrun-name"] for each in status["instances"]]

    assert cloudrun("sim", "down", home=home).returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", urlsplit(env["AWS_ENDPOINT_URL"]).port)) != 0
    assert cloudrun("sim", "status", home=home).returncode == 2
    assert not (home / "sim" / "machines").exists()


def test_real_keys_keep_it_from_starting(home: Path) -> None:
    refused = cloudrun("sim", "up", home=home, AWS_ACCESS_KEY_ID="AKIAREAL", AWS_SECRET_ACCESS_KEY="real")
    assert refused.returncode == 2
    assert "AWS_ACCESS_KEY_ID" in refused.stderr
    assert "--yes" in refused.stderr


def test_without_a_rehearsal_its_commands_say_how_to_begin_one(home: Path) -> None:
    for words in (("env",), ("status",), ("preempt", "k80"), ("drill", "all")):
        said = cloudrun("sim", *words, home=home)
        assert (said.returncode, "sim up" in said.stderr) == (2, True), said.stderr
