"""kill -9 of clients that launch: what they rented is found again, what never was is not charged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_cases import Killed, assert_nothing_is_open, check_refused, forget_variables, use
from rented_help import DRILL

from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.errors import Credentials
from cloudrun.models import Market
from cloudrun.providers.aws.session import Session
from cloudrun.sim.aws import AwsDouble, Delays
from cloudrun.sim.record import SimRecord


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AwsDouble]:
    """EC2 without machines that boot: a launch is waited for until its client is killed."""
    with AwsDouble(None, delay_s=Delays(pending_s=0.2)) as double:
        record = SimRecord(tmp_path / "sim", os.getpid(), double.url, 22, "none")
        use(record.environment(), monkeypatch, tmp_path)
        monkeypatch.setattr(Session, "regions", lambda _session: ["us-east-1", "us-east-2"])  # of 17
        yield double


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_killed_launches_every_machine_is_known_and_none_is_charged_that_never_was(
    double: AwsDouble, tmp_path: Path
) -> None:
    killed = Killed("aws", double, tmp_path, usual=30)
    killed.check_all_is_found_from_elsewhere()
    killed.check_all_is_known_and_ends()
    killed.check_nothing_is_left()


def test_without_credentials_nothing_stays_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_variables(monkeypatch, "AWS_")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    client = Client(Settings(home=tmp_path / "home"))
    plan = client.plan(DRILL, type="p2.xlarge", market=Market.SPOT)
    check_refused(client, lambda: client.submit(plan), Credentials)
    with pytest.raises(Credentials, match="no AWS credentials"):
        client.launch(type="p2.xlarge", market=Market.SPOT)
    assert_nothing_is_open(client)
    assert client.machines() == []
