"""The keys of a machine: made once, whole after a kill at any point, replaced without locking home out."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudrun import keys
from cloudrun.errors import HostKeyMismatch
from cloudrun.keys import fingerprint, host_key_lines, make_keys


def test_the_pairs_belong_together_and_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "keys" / "box"
    made = make_keys(folder, comment="cloudrun box")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name, line in (("id_ed25519", made.login_public), ("host_key", made.host_public)):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        assert public_half(folder / name) == line.split()[:2]
        assert line.endswith(" cloudrun box")
    assert made.login_path == folder / "id_ed25519"
    assert made.host_private == (folder / "host_key").read_text()
    assert host_key_lines(folder).split() == made.host_public.split()[:2]


def test_existing_keys_are_read(tmp_path: Path) -> None:
    made = make_keys(tmp_path, comment="first")
    assert make_keys(tmp_path, comment="second") == made


def test_many_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: make_keys(tmp_path / "box", comment="x"), range(16)))
    assert len(made) == 1


@pytest.mark.parametrize("nth", range(1, 5))
def test_a_kill_at_any_write_leaves_what_the_next_call_completes(tmp_path: Path, nth: int) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cloudrun import keys\n"
        "save, count = keys.save_text, 0\n"
        "def save_or_die(*args, **options):\n"
        "    global count\n"
        "    count += 1\n"
        f"    os.kill(os.getpid(), signal.SIGKILL) if count == {nth} else save(*args, **options)\n"
        "keys.save_text = save_or_die\n"
        "keys.make_keys(Path(sys.argv[1]), comment='box')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    there = {path.name: path.read_text() for path in tmp_path.iterdir() if "." not in path.name}
    made = make_keys(tmp_path, comment="box")
    assert {name: (tmp_path / name).read_text() for name in there} == there  # kept, not made anew
    assert public_half(tmp_path / "host_key") == made.host_public.split()[:2]
    assert public_half(made.login_path) == made.login_public.split()[:2]


def test_while_the_host_key_is_replaced_both_are_told(tmp_path: Path) -> None:
    old = make_keys(tmp_path, comment="box")
    keys.make_key(tmp_path / "other", comment="new")
    (tmp_path / "other.pub").rename(tmp_path / "host_key.next.pub")
    new = " ".join((tmp_path / "host_key.next.pub").read_text().split()[:2])
    assert host_key_lines(tmp_path).splitlines() == [" ".join(old.host_public.split()[:2]), new]
    (tmp_path / "host_key").unlink()
    (tmp_path / "host_key.next.pub").replace(tmp_path / "host_key.pub")
    assert host_key_lines(tmp_path) == new
    assert make_keys(tmp_path, comment="box").host_private == ""  # and no new one is made up
    assert host_key_lines(tmp_path) == new


def test_no_keys_no_lines(tmp_path: Path) -> None:
    assert host_key_lines(tmp_path / "nobody") == ""


def public_half(private: Path) -> list[str]:
    """As OpenSSH's own program derives it."""
    done = subprocess.run(["ssh-keygen", "-y", "-f", private], capture_output=True, text=True, check=True)
    return done.stdout.split()[:2]


def test_fingerprint_is_that_of_ssh_keygen() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github.com"
    assert fingerprint(key) == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
    with pytest.raises(HostKeyMismatch):
        fingerprint("nonsense")
