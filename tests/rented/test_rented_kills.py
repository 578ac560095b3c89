"""kill -9 of clients that launch: what they rented is found again, what never was is not charged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rented_help import DRILL

from cloudrun.client import Client
from cloudrun.config import Settings, load_settings
from cloudrun.errors import Credentials
from cloudrun.models import Machine, Market, RunState
from cloudrun.providers import load_provider
from cloudrun.providers.base import Leftovers
from cloudrun.sim.aws import AwsDouble, Delays
from cloudrun.sim.record import SimRecord

KILLER = Path(__file__).with_name("killer.py")
LAUNCHES = int(os.environ.get("CLOUDRUN_TEST_KILLS", "200"))
SEED = 20261121


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AwsDouble]:
    """EC2 without machines that boot: a launch is waited for until its client is killed."""
    with AwsDouble(None, delay_s=Delays(pending_s=0.2)) as double:
        record = SimRecord(tmp_path / "sim", os.getpid(), double.url, 22, "none")
        for name, value in record.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CLOUDRUN_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("CLOUDRUN_POLL_S", "0.1")
        (tmp_path / "home").mkdir()
        yield double


def live(double: AwsDouble) -> set[str]:
    return {each["id"] for each in double.instances() if each["state"] not in ("shutting-down", "terminated")}


def charged(client: Client, machine: Machine) -> bool:
    return any(not line.void for line in client.store.list_charges(machine=machine.name))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_killed_launches_every_machine_is_known_and_none_is_charged_that_never_was(
    double: AwsDouble, tmp_path: Path
) -> None:
    subprocess.run(
        [sys.executable, str(KILLER), str(tmp_path), str(LAUNCHES), str(SEED), str(DRILL), "aws"],
        check=True,
        timeout=600,
    )
    before = live(double)
    assert before, "no launch came as far as to rent something: the kills come too early to say anything"

    elsewhere = Client(replace(load_settings(), home=tmp_path / "elsewhere"))
    assert {machine.id for machine in elsewhere.adopt(provider="aws")} == before

    client = Client(load_settings())
    for run in client.runs(active=True):
        client.cancel(run.id)
    known = client.machines()
    assert {machine.id for machine in known} == live(double), "the next command knows all that is rented"
    tokens = {each["tags"]["cloudrun-token"] for each in double.instances()}
    phantoms = [each for each in client.store.list_machines(all=True) if each.token not in tokens]
    assert phantoms, "no launch was killed before it was asked for: the kills come too late to say anything"
    real = {each.name for each in client.store.list_machines(all=True) if each.token in tokens}
    assert [each.name for each in phantoms if each.name not in real and charged(client, each)] == []

    client.terminate(*(machine.name for machine in known))
    assert live(double) == set()
    assert client.store.list_charges(open_only=True) == []
    assert client.runs(active=True) == []

    provider = load_provider("aws", load_settings())
    assert isinstance(provider, Leftovers)
    for leftover in provider.list_leftovers():
        provider.free(leftover)
    assert provider.list_leftovers() == []
    assert provider.list_machines() == [] or all(each.state.gone for each in provider.list_machines())
    kept = [path.parent.name for path in load_settings().keys_dir.glob("*/id_ed25519")]
    assert [
        name for name in kept if not name.startswith(".")
    ] == []  # of several at once: kept for some minutes


def test_without_credentials_nothing_stays_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    client = Client(Settings(home=tmp_path / "home"))
    plan = client.plan(DRILL, type="p2.xlarge", market=Market.SPOT)
    with pytest.raises(Credentials, match="no AWS credentials"):
        client.submit(plan)
    (run,) = client.runs()
    assert run.state is RunState.FAILED
    with pytest.raises(Credentials):
        client.launch(type="p2.xlarge", market=Market.SPOT)
    assert client.store.list_charges(open_only=True) == []
    assert client.machines() == []
