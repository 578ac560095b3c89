"""A rehearsal cloud of one's own, and a test's stay in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from rented_help import REGIONS, RentedCloud, wait_for

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.providers.aws.session import Session
from cloudrun.sim import daemon


@contextmanager
def rehearsing(folder: Path) -> Iterator[RentedCloud]:
    """A rehearsal cloud in that folder; it ends with all its machines."""
    yield RentedCloud(daemon.up(folder))
    daemon.down(folder)


@contextmanager
def staying(
    cloud: RentedCloud, home: Path, monkeypatch: pytest.MonkeyPatch, *, regions: Sequence[str] = REGIONS
) -> Iterator[RentedCloud]:
    """This process talks to the cloud, in those regions of AWS's 17; no machine of a test outlives it."""
    for name, value in cloud.record.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLOUDRUN_HOME", str(home))
    monkeypatch.setenv("CLOUDRUN_POLL_S", "0.2")
    monkeypatch.setattr(Session, "regions", lambda _session: list(regions))
    cloud.calm()
    yield cloud
    cloud.calm()
    sweeper = Client(load_settings())
    sweeper.adopt()
    sweeper.terminate(*(machine.name for machine in sweeper.store.list_machines()))
    wait_for(lambda: cloud.live() == [])  # a test left machines behind that nobody knows
