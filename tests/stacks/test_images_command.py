"""`cloudrun images` as it is typed: tables that fit, JSON, and the exit code of a refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def images(tmp_path: Path, *words: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "CLOUDRUN_HOME": str(tmp_path), "COLUMNS": str(columns)}
    command = [sys.executable, "-m", "cloudrun", "images", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_refusal_ends_with_two_and_names_the_change(tmp_path: Path) -> None:
    done = images(tmp_path, "check", "cuda12-torch", "p2.xlarge")
    assert done.returncode == 2
    assert "use cuda11-torch" in done.stderr
    assert images(tmp_path, "check", "cuda11-torch", "p2.xlarge").returncode == 0


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_of_all_fits_the_screen(tmp_path: Path, columns: int) -> None:
    done = images(tmp_path, "check", columns=columns)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines) <= columns
    (k80,) = [line.split() for line in lines if line.startswith("K80")]
    assert k80 == ["K80", *(["3.7"] if columns > 80 else []), "yes", "-", "-", "yes", "yes", "yes"]


def test_list_and_show_as_json(tmp_path: Path) -> None:
    listed = json.loads(images(tmp_path, "list", "--json").stdout)
    shown = json.loads(images(tmp_path, "show", "cuda8-theano", "--json").stdout)
    assert shown in listed
    assert shown["packages"]["cuda-8-0"] == "8.0.61-1"
    assert "K80" in shown["drives"]
    assert len(shown["hash"]) == 12
