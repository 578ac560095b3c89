"""The agent runs on Ubuntu 16.04's Python 3.5, and is one file without anything of ours."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

AGENT = Path(__file__).parents[2] / "cloudrun" / "agent" / "agent.py"


def test_it_parses_as_python_3_5() -> None:
    ast.parse(AGENT.read_text(encoding="utf-8"), feature_version=(3, 5))


def test_it_uses_nothing_newer_than_python_3_5() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("vermin")), "-t=3.5-", "--violations", str(AGENT)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_it_is_ascii_and_imports_the_standard_library_alone() -> None:
    source = AGENT.read_bytes().decode("ascii")
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
