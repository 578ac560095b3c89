"""DNS names of machines on Azure: labels that no region takes, and names that somebody has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from azure_help import REGION, Cloud, open_cloud, spec
from hypothesis import given
from hypothesis import strategies as st

from cloudrun.errors import Refused
from cloudrun.models import LaunchOptions
from cloudrun.providers.azure import names

ALPHABET = "abcxyz019-"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with open_cloud(tmp_path / "home", monkeypatch) as opened:
        yield opened


@pytest.mark.parametrize("label", ["my-k80", "abc", "a" * 63, "k80", "a-9"])
def test_good_labels(label: str) -> None:
    names.check_label(label)


@pytest.mark.parametrize(
    "label", ["", "a", "ab", "My-k80", "8gpus", "-k80", "k80-", "a" * 64, "k_80", "k.80"]
)
def test_bad_labels(label: str) -> None:
    with pytest.raises(Refused) as caught:
        names.check_label(label)
    assert "--dns-label" in caught.value.hint


@given(st.text(ALPHABET, min_size=3, max_size=63))
def test_a_label_begins_with_a_letter_and_ends_with_no_dash(label: str) -> None:
    good = label[0].isalpha() and not label.endswith("-")
    try:
        names.check_label(label)
    except Refused:
        assert not good
    else:
        assert good


def test_the_whole_name() -> None:
    assert names.dns_name("my", "japaneast") == "my.japaneast.cloudapp.azure.com"


def test_a_machine_has_its_name_and_nobody_else_gets_it(cloud: Cloud) -> None:
    session = cloud.provider()._session
    names.refuse_taken(session, REGION, "my-k80", group="none", address="none")
    machine = cloud.launch_running(options=LaunchOptions(dns_label="my-k80"))
    facts = dict(machine.detail)
    assert facts["dns"] == "my-k80.eastus.cloudapp.azure.com"
    assert machine.address is not None
    assert machine.address.host[0].isdigit()
    with pytest.raises(Refused, match=r"my-k80\.eastus\.cloudapp\.azure\.com is taken") as caught:
        names.refuse_taken(session, REGION, "my-k80", group="none", address="none")
    assert "--dns-label" in caught.value.hint
    names.refuse_taken(session, "westus2", "my-k80", group="none", address="none")


def test_a_taken_name_is_refused_before_anything_is_made(cloud: Cloud) -> None:
    cloud.launch_running("one", options=LaunchOptions(dns_label="my-k80"))
    cloud.calls()
    with pytest.raises(Refused, match="is taken"):
        cloud.launch("two", options=LaunchOptions(dns_label="my-k80"))
    with pytest.raises(Refused, match="no label"):
        cloud.launch("two", options=LaunchOptions(dns_label="My K80"))
    assert not [operation for operation in cloud.calls() if operation.endswith("/write")]


def test_a_launch_that_is_repeated_meets_its_own_name(cloud: Cloud, tmp_path: Path) -> None:
    options = LaunchOptions(dns_label="my-k80")
    one = cloud.launch(token="same", options=options)
    elsewhere = cloud.provider(home=tmp_path / "other")  # nothing is remembered there
    assert elsewhere.launch(spec(token="same", options=options)).id == one.id
