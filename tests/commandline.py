"""The command line in this process: what a test types, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cloudrun.cli import run


@dataclass(frozen=True)
class Said:
    """What one command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


def say(capsys: pytest.CaptureFixture[str], *words: object) -> Said:
    """Run the command line of these words; its exit code, and what it alone wrote."""
    capsys.readouterr()
    code = run([str(word) for word in words])
    said = capsys.readouterr()
    return Said(code, said.out, said.err)
