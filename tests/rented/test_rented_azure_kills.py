"""kill -9 of clients that launch at Azure: all that they made is a machine that is known, or a leftover."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rented_help import AZURE_TYPE, DRILL

from cloudrun.client import Client
from cloudrun.config import Settings, load_settings
from cloudrun.errors import Credentials
from cloudrun.models import Machine, Market, RunState
from cloudrun.providers import load_provider
from cloudrun.providers.base import Leftovers
from cloudrun.sim.azure import AzureDouble, Delays

KILLER = Path(__file__).with_name("killer.py")
LAUNCHES = int(os.environ.get("CLOUDRUN_TEST_KILLS", "40"))  # 200 and more say the same, for longer
SEED = 20261121
GONE = ("", "deleted")
WITHIN_S = 30.0


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AzureDouble]:
    """Azure without machines that boot: a launch is waited for until its client is killed."""
    with AzureDouble(folder=tmp_path / "double", delay_s=Delays(creating_s=0.2)) as double:
        for name, value in double.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CLOUDRUN_ADDRESS_URL", f"{double.url}/_sim/address")
        monkeypatch.setenv("CLOUDRUN_SIM", str(tmp_path / "sim"))
        monkeypatch.setenv("CLOUDRUN_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("CLOUDRUN_POLL_S", "0.1")
        (tmp_path / "home").mkdir()
        for family in ("cores", "lowPriorityCores"):
            double.set_quota("eastus", family, 100_000)
        yield double


def live(double: AzureDouble) -> set[str]:
    return {each["id"].lower() for each in double.instances() if each["state"] not in GONE}


def charged(client: Client, machine: Machine) -> bool:
    return any(not line.void for line in client.store.list_charges(machine=machine.name))


def groups(double: AzureDouble) -> set[str]:
    """All resource groups that do not go."""
    return {each.name for each in double._running().groups.values() if each.state != "Deleting"}


def ids(machines: list[Machine]) -> set[str]:
    return {machine.id.lower() for machine in machines}


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_killed_launches_all_is_known_and_nothing_is_charged_that_never_was(
    double: AzureDouble, tmp_path: Path
) -> None:
    subprocess.run(
        [sys.executable, str(KILLER), str(tmp_path), str(LAUNCHES), str(SEED), str(DRILL), "azure"],
        check=True,
        timeout=600,
    )
    before = live(double)
    assert before, "no launch came as far as to rent something: the kills come too early to say anything"

    elsewhere = Client(replace(load_settings(), home=tmp_path / "elsewhere"))
    assert ids(elsewhere.adopt(provider="azure")) == before

    provider = load_provider("azure", load_settings())
    assert isinstance(provider, Leftovers)
    found = {each.name for each in provider.list_leftovers() if each.kind == "resource group"}
    assert found == groups(double), "every group is a machine's, or known to be left"
    assert len(found) > len(before), "no launch was killed halfway"

    client = Client(load_settings())
    for run in client.runs(active=True):
        client.cancel(run.id)
    known = client.machines()
    assert ids(known) == live(double), "the next command knows all that is rented"
    tokens = {each["tags"]["cloudrun-token"] for each in double.instances()}
    rows = client.store.list_machines(all=True)
    phantoms = [each for each in rows if each.token not in tokens]
    assert phantoms, "no launch was killed before it was asked for: the kills come too late to say anything"
    real = {each.name for each in rows if each.token in tokens}
    assert [each.name for each in phantoms if each.name not in real and charged(client, each)] == []

    client.terminate(*(machine.name for machine in known))
    wait_until(lambda: live(double) == set())
    assert client.store.list_charges(open_only=True) == []
    assert client.runs(active=True) == []

    for leftover in provider.list_leftovers():
        provider.free(leftover)
    assert provider.list_leftovers() == []
    wait_until(lambda: not double._running().groups)
    assert list(double._running().resources()) == []
    assert provider.list_machines() == []
    assert [path.parent.name for path in load_settings().keys_dir.glob("*/id_ed25519")] == []


def test_without_credentials_nothing_stays_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path / "none"))
    client = Client(Settings(home=tmp_path / "home", sim=tmp_path / "sim"))
    plan = client.plan(DRILL, type=AZURE_TYPE, market=Market.SPOT, regions=("eastus",))
    with pytest.raises(Credentials):
        client.submit(plan)
    (run,) = client.runs()
    assert run.state is RunState.FAILED
    assert client.store.list_charges(open_only=True) == []
    assert client.machines() == []
