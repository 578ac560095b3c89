"""The step that writes ~/.theanorc, on files that a user has written in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cloudrun.assets import provisioning_dir

STEP = provisioning_dir() / "steps" / "30-theanorc.sh"
WANTED = "global.device=gpu\nglobal.floatX=float32\nlib.cnmem=0.8"


def run_step(home: Path, verb: str, wanted: str = WANTED) -> int:
    environ = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "THEANORC": wanted}
    return subprocess.run(["sh", str(STEP), verb], env=environ, timeout=60, check=False).returncode


def test_a_users_keys_and_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / ".theanorc"
    file.write_text("# mine\n[nvcc]\nfastmath = True\n\n[global]\ndevice=cpu\n# slow\nmode = FAST_RUN\n")
    assert run_step(tmp_path, "check") == 1
    assert "device=cpu" in file.read_text()
    assert run_step(tmp_path, "apply") == 0
    assert file.read_text() == (
        "# mine\n\n[nvcc]\nfastmath = True\n\n"
        "[global]\ndevice = gpu\n# slow\nmode = FAST_RUN\nfloatX = float32\n\n[lib]\ncnmem = 0.8\n"
    )
    assert run_step(tmp_path, "check") == 0


@pytest.mark.parametrize("text", ["", "[global]\n\n", "[global]\ndevice = cuda\ndevice = cpu\n"])
def test_the_second_apply_changes_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / ".theanorc"
    file.write_text(text)
    assert run_step(tmp_path, "apply") == 0
    once = file.read_text()
    assert once.count("device") == 1
    assert run_step(tmp_path, "apply") == 0
    assert file.read_text() == once
    assert run_step(tmp_path, "check") == 0
