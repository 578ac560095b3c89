"""Logging in to the ARM double with Microsoft's own client, and what calls without a login get."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import pytest
from arm_help import SCOPE, Plain
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from azure.mgmt.resource.resources import ResourceManagementClient
from quick_azure import QUICK

from cloudrun.sim.azure import AzureDouble


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureDouble]:
    with AzureDouble(folder=tmp_path, delay_s=QUICK) as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def test_the_unmodified_client_logs_in_once(double: AzureDouble) -> None:
    with clients(double) as groups:
        groups.resource_groups.create_or_update("one", {"location": "eastus"})
        assert [each.name for each in groups.resource_groups.list()] == ["one"]
        assert groups.resource_groups.check_existence("one")
        assert not groups.resource_groups.check_existence("other")
    assert [call.status for call in double.calls()] == [201, 200, 204, 404]


def test_who_trusts_the_double_trusts_the_world_as_before(double: AzureDouble) -> None:
    trusted = ssl.create_default_context(cafile=double.environment()["SSL_CERT_FILE"]).get_ca_certs()
    world = ssl.create_default_context(cafile=certifi.where()).get_ca_certs()
    assert len(trusted) == len(world) + 1


def test_tokens_that_end_are_asked_for_anew(double: AzureDouble) -> None:
    with clients(double) as groups:
        list(groups.resource_groups.list())
        double.expire_tokens()
        double.forget_calls()
        assert list(groups.resource_groups.list()) == []
    assert [(call.status, call.code) for call in double.calls()] == [
        (401, "ExpiredAuthenticationToken"),
        (200, ""),
    ]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("AZURE_CLIENT_SECRET", "AADSTS7000215"),
        ("AZURE_CLIENT_ID", "AADSTS700016"),
        ("AZURE_TENANT_ID", "tenant"),
    ],
)
def test_a_wrong_login_is_refused(double: AzureDouble, wrong: str, code: str) -> None:
    told = double.environment() | {wrong: "11111111-1111-4111-8111-111111111111"}
    with login(told) as credential, pytest.raises((ClientAuthenticationError, ValueError), match=code):
        credential.get_token(SCOPE)


def test_calls_without_a_token_are_refused(double: AzureDouble) -> None:
    with closing(Plain(double)) as plain:
        plain.token = "made-up"
        answer = plain("GET", f"{plain.subscription}/resourceGroups")
    assert (answer.status, answer.code) == (401, "InvalidAuthenticationToken")
    assert double.environment()["AZURE_TENANT_ID"] in answer.headers["www-authenticate"]


def test_other_subscriptions_are_not_there(double: AzureDouble) -> None:
    with closing(Plain(double)) as plain:
        answer = plain("GET", "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups")
    assert (answer.status, answer.code) == (404, "SubscriptionNotFound")


def test_its_authority_has_to_be_trusted(double: AzureDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    stranger = HTTPSConnection(urlsplit(double.url).netloc, context=ssl.create_default_context(), timeout=10)
    with closing(stranger), pytest.raises(ssl.SSLCertVerificationError):
        stranger.request("GET", "/")


def test_a_connection_stays_open_until_the_double_stops(tmp_path: Path) -> None:
    double = AzureDouble(folder=tmp_path)
    double.start()
    with closing(Plain(double)) as plain:
        line = plain.line.sock
        for _ in range(3):
            assert plain("GET", f"{plain.subscription}/resourceGroups").status == 200
        assert plain.line.sock is line
        double.stop()
        double.stop()
        with pytest.raises(OSError):
            plain("GET", f"{plain.subscription}/resourceGroups")


def clients(double: AzureDouble) -> Any:
    told = double.environment()
    return ResourceManagementClient(
        login(told), told["AZURE_SUBSCRIPTION_ID"], base_url=double.url, credential_scopes=[SCOPE]
    )


def login(told: Mapping[str, str]) -> ClientSecretCredential:
    """As whoever is told of the double logs in."""
    return ClientSecretCredential(
        told["AZURE_TENANT_ID"],
        told["AZURE_CLIENT_ID"],
        told["AZURE_CLIENT_SECRET"],
        authority=told["AZURE_AUTHORITY_HOST"],
        disable_instance_discovery=True,
    )
