"""kill -9 of clients that launch at Azure: all that they made is a machine that is known, or a leftover."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_cases import Killed, check_refused, forget_variables, use
from rented_help import AZURE_TYPE, DRILL, wait_for

from cloudrun.client import Client
from cloudrun.config import Settings, load_settings
from cloudrun.errors import Credentials
from cloudrun.models import Market
from cloudrun.providers import load_provider
from cloudrun.providers.base import Leftovers
from cloudrun.sim.azure import AzureDouble, Delays


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AzureDouble]:
    """Azure without machines that boot: a launch is waited for until its client is killed."""
    with AzureDouble(folder=tmp_path / "double", delay_s=Delays(creating_s=0.2)) as double:
        here = {"CLOUDRUN_ADDRESS_URL": f"{double.url}/_sim/address", "CLOUDRUN_SIM": str(tmp_path / "sim")}
        use({**double.environment(), **here}, monkeypatch, tmp_path)
        for family in ("cores", "lowPriorityCores"):
            double.set_quota("eastus", family, 100_000)
        yield double


def groups(double: AzureDouble) -> set[str]:
    """All resource groups that do not go."""
    return {each.name for each in double._running().groups.values() if each.state != "Deleting"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_killed_launches_all_is_known_and_nothing_is_charged_that_never_was(
    double: AzureDouble, tmp_path: Path
) -> None:
    killed = Killed("azure", double, tmp_path, usual=20)
    killed.check_all_is_found_from_elsewhere()
    provider = load_provider("azure", load_settings())
    assert isinstance(provider, Leftovers)
    found = {each.name for each in provider.list_leftovers() if each.kind == "resource group"}
    assert found == groups(double), "every group is a machine's, or known to be left"
    assert len(found) > len(killed.live()), "no launch was killed halfway"
    killed.check_all_is_known_and_ends()
    killed.check_nothing_is_left()
    wait_for(lambda: not double._running().groups)
    assert list(double._running().resources()) == []


def test_without_credentials_nothing_stays_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_variables(monkeypatch, "AZURE_")
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path / "none"))
    client = Client(Settings(home=tmp_path / "home", sim=tmp_path / "sim"))
    plan = client.plan(DRILL, type=AZURE_TYPE, market=Market.SPOT, regions=("eastus",))
    check_refused(client, lambda: client.submit(plan), Credentials)
