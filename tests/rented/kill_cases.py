"""Many launches that are killed at random, and what has to hold afterwards, at every cloud."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rented_help import DRILL, wait_for

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.models import Machine, RunState
from cloudrun.providers import load_provider
from cloudrun.providers.base import Leftovers

KILLER = Path(__file__).with_name("killer.py")
SEED = 20261121
GONE = ("", "deleted", "shutting-down", "terminated")  # states of machines that cost nothing any more


def use(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """This process talks to that double, from a home below the folder."""
    (folder / "home").mkdir()
    more = {"CLOUDRUN_HOME": str(folder / "home"), "CLOUDRUN_POLL_S": "0.1"}
    for name, value in {**environment, **more}.items():
        monkeypatch.setenv(name, value)


class Killed:
    """So many launches at a cloud, half of them cut before they knew what they got."""

    def __init__(self, cloud: str, double: Any, folder: Path, *, usual: int) -> None:
        """CLOUDRUN_TEST_KILLS says how many, else `usual`."""
        self._cloud, self._double, self._folder = cloud, double, folder
        launches = os.environ.get("CLOUDRUN_TEST_KILLS", str(usual))
        argv = (sys.executable, str(KILLER), str(folder), launches, str(SEED), str(DRILL), cloud)
        shared = {**os.environ, "PYTHONPATH": str(KILLER.parents[1])}
        subprocess.run(argv, check=True, timeout=600, env=shared)
        assert self.live(), "no launch came as far as to rent something: the kills come too early"

    def live(self) -> set[str]:
        return {each["id"].lower() for each in self._double.instances() if each["state"] not in GONE}

    def check_all_is_found_from_elsewhere(self) -> None:
        elsewhere = Client(replace(load_settings(), home=self._folder / "elsewhere"))
        assert ids(elsewhere.adopt(provider=self._cloud)) == self.live()

    def check_all_is_known_and_ends(self) -> None:
        """What there is is known; what never was is not charged; in the end there is nothing."""
        client = Client(load_settings())
        for run in client.runs(active=True):
            client.cancel(run.id)
        known = client.machines()
        assert ids(known) == self.live(), "the next command knows all that is rented"
        tokens = {each["tags"]["cloudrun-token"] for each in self._double.instances()}
        rows = client.store.list_machines(all=True)
        phantoms = [each for each in rows if each.token not in tokens]
        assert phantoms, "no launch was killed before it was asked for: the kills come too late"
        real = {each.name for each in rows if each.token in tokens}
        assert [each.name for each in phantoms if each.name not in real and charged(client, each)] == []
        client.terminate(*(machine.name for machine in known))
        wait_for(lambda: self.live() == set())
        assert_nothing_is_open(client)

    def check_nothing_is_left(self) -> None:
        """But keys of several launches at once, which are kept for some minutes."""
        provider = load_provider(self._cloud, load_settings())
        assert isinstance(provider, Leftovers)
        for leftover in provider.list_leftovers():
            provider.free(leftover)
        assert provider.list_leftovers() == []
        assert all(each.state.gone for each in provider.list_machines())
        kept = [path.parent.name for path in load_settings().keys_dir.glob("*/id_ed25519")]
        assert [name for name in kept if not name.startswith(".")] == []


def ids(machines: Iterable[Machine]) -> set[str]:
    return {machine.id.lower() for machine in machines}


def charged(client: Client, machine: Machine) -> bool:
    return any(not line.void for line in client.store.list_charges(machine=machine.name))


def assert_nothing_is_open(client: Client) -> None:
    assert client.store.list_charges(open_only=True) == []
    assert client.runs(active=True) == []


def check_refused(client: Client, submit: Callable[[], object], error: type[Exception]) -> None:
    """A run that its cloud refuses at once has failed, and is all that is left of it."""
    with pytest.raises(error):
        submit()
    (run,) = client.runs()
    assert run.state is RunState.FAILED
    assert_nothing_is_open(client)
    assert client.machines() == []


def forget_variables(monkeypatch: pytest.MonkeyPatch, beginning: str) -> None:
    for name in [name for name in os.environ if name.startswith(beginning)]:
        monkeypatch.delenv(name)
