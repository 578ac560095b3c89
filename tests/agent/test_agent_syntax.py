"""The agent and its companions run on Ubuntu 16.04's Python 3.5, each one file without anything of ours."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

AGENT = Path(__file__).parents[2] / "cloudrun" / "agent" / "agent.py"
PARTS = ("azure", "cleaning", "datasets", "outbox", "packs")
FILES = [AGENT, *(AGENT.with_name(f"{name}.py") for name in PARTS)]
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


@each
def test_it_parses_as_python_3_5(file: Path) -> None:
    ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 5))


@each
def test_it_uses_nothing_newer_than_python_3_5(file: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("vermin")), "-t=3.5-", "--violations", str(file)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@each
def test_it_is_ascii_and_imports_the_standard_library_alone(file: Path) -> None:
    source = file.read_bytes().decode("ascii")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["start", "too", "many"]])
def test_a_wrong_call_leaves_no_traceback(argv: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(AGENT), *argv],
        env={**os.environ, "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 2 or "TypeError" in done.stdout
