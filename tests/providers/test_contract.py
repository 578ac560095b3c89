"""What every provider promises (cloudrun/providers/base.py), held by each of ours."""

from __future__ import annotations

import dataclasses

import pytest
from provider_cases import Case

from cloudrun.config import Settings
from cloudrun.errors import ProviderError
from cloudrun.models import MachineState, Market
from cloudrun.providers import load_provider, provider_names
from cloudrun.providers.base import Need, Provider
from cloudrun.remote.connect import connect


def test_a_machine_from_its_beginning_to_its_end(case: Case, settings: Settings) -> None:
    made = case.make("one")
    assert (made.name, made.provider, made.state) == ("one", case.provider.name, MachineState.RUNNING)
    assert made.token
    assert made.launched_at is not None
    assert made.launched_at.tzinfo is not None
    assert made.address is not None
    assert connect(made.address, settings, machine="one").run("echo there").text == "there"
    assert [machine.id for machine in case.provider.list_machines()] == [made.id]
    case.provider.terminate(made)
    assert case.provider.describe(made).state is MachineState.TERMINATED
    assert case.provider.list_machines() == []
    case.provider.terminate(made)  # silent when it is gone already


def test_machines_are_told_apart(case: Case) -> None:
    one, two = case.make("one"), case.make("two")
    assert one.id != two.id
    case.provider.terminate(one)
    assert [machine.name for machine in case.provider.list_machines()] == ["two"]
    again = case.make("one")
    assert again.id != one.id or again.token == one.token
    assert case.provider.describe(two).state is MachineState.RUNNING


def test_describe_keeps_what_others_know(case: Case) -> None:
    """The record may carry facts of ours (versions, provisioned): describe does not lose them."""
    made = dataclasses.replace(case.make("one"), provisioned=True, versions=(("python", "3.11"),))
    seen = case.provider.describe(made)
    assert (seen.provisioned, seen.versions) == (True, (("python", "3.11"),))


def test_a_stranger_with_the_same_name_is_not_that_machine(case: Case) -> None:
    made = case.make("one")
    stranger = dataclasses.replace(made, token="another")
    assert case.provider.describe(stranger).state is MachineState.TERMINATED
    case.provider.terminate(stranger)
    assert case.provider.describe(made).state is MachineState.RUNNING


def test_offers_have_no_side_effects_and_an_order(case: Case) -> None:
    before = case.provider.list_machines()
    offers = case.provider.offers(Need())
    fitting = [offer for offer in offers if offer.fits]
    prices = [offer.price_per_hour_usd for offer in fitting if offer.price_per_hour_usd is not None]
    assert prices == sorted(prices)
    assert all(offer.provider == case.provider.name for offer in offers)
    assert case.provider.offers(Need(type="no such type")) == []
    spot = case.provider.offers(Need(market=Market.SPOT))
    assert bool(spot) == case.rents
    assert all(offer.market is Market.SPOT for offer in spot)
    assert case.provider.list_machines() == before


def test_construction_does_no_io(settings: Settings) -> None:
    for name in provider_names():
        provider: Provider = load_provider(name, settings)
        assert provider.name == name
    assert not settings.home.exists()


def test_an_unknown_provider_is_told_with_those_that_exist(settings: Settings) -> None:
    with pytest.raises(ProviderError, match="nimbus") as caught:
        load_provider("nimbus", settings)
    assert "local" in caught.value.hint
    assert "attached" in caught.value.hint
