"""provisioning/clean_image.sh: what it takes off a disk, and that it refuses computers that are not ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cloudrun.assets import provisioning_dir

SCRIPT = provisioning_dir() / "clean_image.sh"
GONE = (
    ".system/etc/ssh/ssh_host_ed25519_key",
    ".system/var/lib/cloud/instances/i-1/sem/config_ssh",
    ".system/var/lib/cloud/scripts/per-boot/cloudrun.sh",
    ".system/var/lib/waagent/ovf-env.xml",
    ".system/var/log/syslog.1",
    ".system/var/cache/apt/archives/cuda.deb",
    ".ssh/authorized_keys",
    ".bash_history",
    ".system/root/.bash_history",
    ".cloudrun/runs/r1/log",
    ".cloudrun/agent-1.py",
)
EMPTIED = (".system/etc/machine-id", ".system/var/log/syslog")
STAYS = (
    ".cloudrun/guard.json",
    ".system/var/lib/cloudrun/policy.json",
    ".system/var/lib/cloud/scripts/per-boot/theirs.sh",
    ".system/opt/theano",
    "mine",
)


def clean(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", SCRIPT, home], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of a rehearsal's machine without root, whose system lies in it."""
    for name in (*GONE, *EMPTIED, *STAYS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("secret\n")
    return tmp_path


def test_what_is_the_machines_own_goes_and_what_was_installed_stays(home: Path) -> None:
    for _ in range(2):
        done = clean(home)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("used-gb ")
    assert [name for name in GONE if (home / name).exists()] == []
    assert [(home / name).read_text() for name in EMPTIED] == ["", ""]
    assert [name for name in STAYS if (home / name).read_text() != "secret\n"] == []


def test_the_next_first_boot_forgets_the_guard(home: Path) -> None:
    clean(home)
    script = home / ".system/var/lib/cloud/scripts/per-boot/cloudrun-image.sh"
    assert script.name < "cloudrun.sh"  # it runs before the one that arms the new guard
    subprocess.run([script], check=True, env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, timeout=60)
    assert not (home / ".cloudrun/guard.json").exists()
    assert not script.exists()


def test_a_computer_without_our_payload_is_left_alone(home: Path) -> None:
    if Path("/var/lib/cloudrun/policy.json").exists():
        pytest.skip("cloudrun has launched this very computer")
    (home / ".system/var/lib/cloudrun/policy.json").unlink()
    done = clean(home)
    assert done.returncode == 1
    assert "no machine that cloudrun has launched" in done.stderr
    assert [name for name in GONE if not (home / name).exists()] == []


def test_shellcheck_has_nothing_to_say() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
