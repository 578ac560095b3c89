"""The machine of the agent's tests, and an agent in a hurry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from localmachine import LocalShell, local_machine

from cloudrun.remote import agentlink


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[LocalShell]:
    with local_machine(tmp_path) as shell:
        yield shell


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that looks more often and has less patience, for tests that need many looks."""
    source = agentlink.agent_source()
    for old, new in ((b"POLL_S = 2.0", b"POLL_S = 0.05"), (b"GRACE_S = 5.0", b"GRACE_S = 0.3")):
        assert source.count(b"NOTICE_" + old) == 1
        source = source.replace(b"NOTICE_" + old, b"NOTICE_" + new)
    monkeypatch.setattr(agentlink, "agent_source", lambda: source)
    monkeypatch.setattr(agentlink, "agent_name", lambda: "agent-hasty")
