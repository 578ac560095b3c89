"""Start-up stays cheap: what --help and status load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_samples import NOW, a_run

from cloudrun.client import Client
from cloudrun.models import Attempt, Market, Offer

HEAVY = {
    *(
        "asyncio",
        "asyncssh",
        "azure",
        "boto3",
        "botocore",
        "fabric",
        "http.client",
        "multiprocessing",
        "numpy",
    ),
    *("paramiko", "pathspec", "pydantic", "requests", "rich", "torch", "typer", "xml"),
    *("cloudrun.plan", "cloudrun.execute", "cloudrun.jobs", "cloudrun.remote", "cloudrun.supervise"),
}
WALKING = {"cloudrun.execute", "cloudrun.remote", "cloudrun.supervise"}  # what reading a log brings in
HELP_ONLY = (
    "cloudrun.client",
    "cloudrun.models",
    "cloudrun.cli.render",
    "cloudrun.cli.status",
    "sqlite3",
    "json",
)


def loaded(home: Path, *words: str) -> set[str]:
    """The modules that one command line leaves behind in a process of its own."""
    program = (
        "import sys\nfrom cloudrun.cli import run\n"
        f"code = run({list(words)!r})\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\nraise SystemExit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "CLOUDRUN_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["machines", "--help"]])
def test_help_loads_next_to_nothing(home: Path, words: list[str]) -> None:
    modules = loaded(home, *words)
    assert "click" in modules
    assert modules.isdisjoint(HEAVY)
    if words[0] != "machines":
        assert modules.isdisjoint(HELP_ONLY)


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["status", "last"], ["logs", "last"]])
def test_looking_loads_the_store_and_no_more(home: Path, client: Client, words: list[str]) -> None:
    run = a_run()
    offer = Offer("local", "here", "local", Market.OWN, None)
    client.store.add_run(run, Attempt(run.id, 1, "t", offer, started_at=NOW), [])
    modules = loaded(home, *words)
    assert "sqlite3" in modules
    assert modules.isdisjoint(HEAVY - (WALKING if words[0] == "logs" else set()))
