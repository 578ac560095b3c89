"""What the words of Azure tell beside their code, where codes stand, and what goes wrong around it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import requests
from azure.core import exceptions as core
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential, CredentialUnavailableError, EnvironmentCredential
from azure.mgmt.compute import ComputeManagementClient
from error_cases import OF_AZURE as EXPECTED
from error_cases import Answer
from error_cases import azure_refusal as refusal
from error_cases import met_at_azure as met

from cloudrun.errors import (
    CloudrunError,
    ConnectionLost,
    Credentials,
    ImageNotFound,
    NoCapacity,
    NotOffered,
    ProviderError,
    Quota,
)
from cloudrun.providers.azure.codes import WRAPPERS
from cloudrun.providers.azure.errors import error_for, mapped

NC6 = "Standard_NC6"

QUOTA = (
    "Operation could not be completed as it results in exceeding approved {} quota. Additional details - "
    "Deployment Model: Resource Manager, Location: eastus, Current Limit: 4, Current Usage: 3, Additional "
    "Required: 6, (Minimum) New Limit Required: 9. Submit a request for Quota increase at https://aka.ms/x"
)


# --- the table ---


@pytest.mark.parametrize("code", EXPECTED)
def test_a_code_of_the_catalogue_that_an_operation_ends_with(code: str) -> None:
    body = {"status": "Failed", "name": "1", "error": {"code": code, "message": "words of Azure"}}
    late = HttpResponseError(response=Answer(200, body, "GET"), error=ValueError("failed or canceled"))
    as_pair = error_for(code, "words of Azure", region="eastus", what="launch")
    assert type(met(late)) is type(as_pair) is EXPECTED[code]


@pytest.mark.parametrize("code", EXPECTED)
def test_a_code_of_the_catalogue_inside_another(code: str) -> None:
    inside = {"code": code, "message": "words of Azure"}
    wrapped = refusal("InvalidTemplateDeployment", "see details", status=400, details=[inside])
    assert type(met(wrapped)) is EXPECTED[code]
    if code not in WRAPPERS:
        assert f"({code})" in met(wrapped).message


# --- what the words tell ---


@pytest.mark.parametrize("code", ["OperationNotAllowed", "QuotaExceeded"])
@pytest.mark.parametrize("family", ["Standard NCASv3_T4 Family Cores", "LowPriorityCores"])
def test_a_quota_is_named_with_its_limit_and_use(code: str, family: str) -> None:
    error = met(refusal(code, QUOTA.format(family)))
    assert isinstance(error, Quota)
    assert f"{family}: the limit is 4, 3 in use, 6 more needed" in error.message
    assert "--region" in error.hint


def test_a_quota_in_the_older_words() -> None:
    said = "Operation results in exceeding quota limits of Core. Maximum allowed: 10, Current in use: 8, "
    error = met(refusal("OperationNotAllowed", said + "Additional requested: 6."))
    assert isinstance(error, Quota)
    assert "Core: the limit is 10, 8 in use, 6 more needed" in error.message


def test_a_quota_without_figures_is_still_a_quota() -> None:
    error = met(refusal("QuotaExceeded", "exceeding approved Total Regional Cores quota."))
    assert isinstance(error, Quota)
    assert "Total Regional Cores" in error.message


def test_what_is_not_allowed_and_no_quota() -> None:
    error = met(refusal("OperationNotAllowed", "Operation 'start' is not allowed on VM 'cr-1'."))
    assert type(error) is ProviderError
    assert "Operation 'start' is not allowed" in error.message


def test_a_missing_right_is_named_as_the_role_names_it() -> None:
    said = (
        "The client 'a' with object id 'b' does not have authorization to perform action "
        "'Microsoft.Compute/virtualMachines/write' over scope '/subscriptions/s' or the scope is invalid."
    )
    error = met(refusal("AuthorizationFailed", said, status=403))
    assert isinstance(error, Credentials)
    assert "may not do that: Microsoft.Compute/virtualMachines/write (AuthorizationFailed)" in error.message
    assert "azure-role.json" in error.hint


def test_a_missing_right_on_something_linked() -> None:
    said = (
        "The client has permission to perform action 'Microsoft.Network/networkInterfaces/write' on scope "
        "'/a'; however, it does not have permission to perform action(s) "
        "'Microsoft.Network/virtualNetworks/subnets/join/action' on the linked scope(s) '/b'."
    )
    error = met(refusal("LinkedAuthorizationFailed", said, status=403))
    assert "Microsoft.Network/virtualNetworks/subnets/join/action" in error.message


def test_an_unregistered_part_of_azure_is_named_in_the_command() -> None:
    said = "The subscription is not registered to use namespace 'Microsoft.Network'. See https://aka.ms/r"
    error = met(refusal("MissingSubscriptionRegistration", said))
    assert "az provider register --namespace Microsoft.Network" in error.hint


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "17"}, "17 s"), ({"x-ms-retry-after-ms": "1500"}, "1.5 s")],
)
@pytest.mark.parametrize("code", ["TooManyRequests", "OperationNotAllowed", "BrandNewCode"])
def test_throttled_says_for_how_long(headers: Mapping[str, str], seconds: str, code: str) -> None:
    body = {"error": {"code": code, "message": "The server rejected the request"}}
    error = met(HttpResponseError(response=Answer(429, body, headers=headers)))
    assert type(error) is ProviderError
    assert f"throttled for {seconds}" in error.message
    assert error.hint == f"wait {seconds}, then try again"


def test_throttled_without_a_time() -> None:
    assert "wait" in met(HttpResponseError(response=Answer(429, ""))).hint


def test_a_retired_size_names_its_end_and_its_successors() -> None:
    error = met(refusal("SkuNotAvailable", "The requested VM size is currently not available"), NC6)
    assert isinstance(error, NotOffered)
    assert error.hint.startswith("Standard_NC6 was retired on 2023-")
    assert "today's nearest: Standard_" in error.hint


def test_a_size_that_azure_never_had() -> None:
    said = "The value Standard_NC7 provided for the VM size is not valid. The valid sizes are: ..."
    assert isinstance(met(refusal("InvalidParameter", said, status=400)), NotOffered)


def test_another_bad_value_is_no_bad_size() -> None:
    error = met(refusal("InvalidParameter", "The value of parameter linuxConfiguration is invalid."))
    assert type(error) is ProviderError
    assert "linuxConfiguration" in error.message


def test_an_image_of_the_wrong_generation() -> None:
    said = "The selected VM size 'Standard_NC6' cannot boot Hypervisor Generation '2'."
    assert isinstance(met(refusal("BadRequest", said, status=400)), ImageNotFound)


def test_an_image_of_ones_own_that_is_gone() -> None:
    place = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/images/i"
    said = f"The Image '{place}' cannot be found in 'eastus' region."
    assert isinstance(met(refusal("NotFound", said, status=404)), ImageNotFound)


def test_long_words_are_cut() -> None:
    assert len(met(refusal("BrandNewCode", "x" * 5000)).message) < 500


# --- where codes stand ---


def test_a_code_in_an_inner_error() -> None:
    inner = {"code": "Outer", "innererror": {"code": "ZonalAllocationFailed", "message": "no room"}}
    assert isinstance(met(refusal("Conflict", innererror=inner)), NoCapacity)


def test_a_code_in_a_message_that_is_json() -> None:
    said = json.dumps({"error": {"code": "SkuNotAvailable", "message": "not here"}})
    wrapped = refusal("DeploymentFailed", "see", details=[{"code": "Conflict", "message": said}])
    assert isinstance(met(wrapped), NotOffered)
    assert isinstance(error_for("Conflict", said, region="eastus"), NotOffered)


def test_codes_within_codes_without_end() -> None:
    body: dict[str, Any] = {"code": "AllocationFailed", "message": ""}
    for _ in range(200):
        body = {"code": "Conflict", "message": "again", "details": [body]}
    assert type(met(HttpResponseError(response=Answer(409, {"error": body})))) is ProviderError


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, Credentials), (403, Credentials), (404, ProviderError), (409, ProviderError)],
)
def test_an_answer_without_a_code_counts_by_its_status(status: int, expected: type[CloudrunError]) -> None:
    error = met(HttpResponseError(response=Answer(status, "<html>")))
    assert type(error) is expected
    assert error.hint


def test_an_operation_that_failed_without_a_word() -> None:
    late = HttpResponseError(response=Answer(200, {"status": "Canceled"}), message="failed or canceled")
    assert "failed or canceled" in met(late).message


# --- the line and the login ---


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_trouble_while_something_is_made_leaves_open_whether_it_is_there(method: str, status: int) -> None:
    assert type(met(HttpResponseError(response=Answer(status, "", method)))) is ConnectionLost
    assert type(met(refusal("InternalServerError", status=status, method=method))) is ConnectionLost


@pytest.mark.parametrize("status", [408, 500, 503])
def test_trouble_while_only_asking(status: int) -> None:
    assert type(met(HttpResponseError(response=Answer(status, "", "GET")))) is ProviderError


def test_trouble_with_a_code_that_says_no_is_a_no() -> None:
    assert type(met(refusal("AllocationFailed", status=500))) is NoCapacity


def test_an_operation_that_ended_in_trouble_was_not_done() -> None:
    assert type(met(refusal("InternalExecutionError", status=200, method="PUT"))) is ProviderError


@pytest.mark.parametrize(
    ("method", "expected"),
    [("PUT", ConnectionLost), ("POST", ConnectionLost), ("GET", ProviderError), ("DELETE", ProviderError)],
)
def test_a_lost_answer(method: str, expected: type[CloudrunError]) -> None:
    asked = requests.Request(method, "https://management.azure.com/").prepare()
    broke = requests.ConnectionError("Connection aborted.", request=asked)
    error = met(core.ServiceResponseError(broke, error=broke))
    assert type(error) is expected
    assert "Connection aborted" in error.message
    assert error.hint


def test_a_lost_answer_to_nobody_knows_what() -> None:
    assert type(met(core.ServiceResponseError("broke"))) is ConnectionLost
    assert type(met(core.IncompleteReadError("broke"))) is ConnectionLost


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (core.ServiceRequestError("refused"), ProviderError, "cannot be reached"),
        (core.ServiceRequestTimeoutError("timed out"), ProviderError, "cannot be reached"),
        (CredentialUnavailableError("none"), Credentials, "no Azure credentials"),
        (core.ClientAuthenticationError("x\nAADSTS7000215: Invalid secret.\nTrace"), Credentials, "AADSTS70"),
        (core.SerializationError("bad value"), ProviderError, "bad value"),
        (core.DecodeError("no json"), ProviderError, "no json"),
        (core.TooManyRedirectsError([]), ProviderError, "redirect attempts"),
    ],
)
def test_what_goes_wrong_around_azure(error: Exception, expected: type[CloudrunError], said: str) -> None:
    found = met(error)
    assert type(found) is expected
    assert said in found.message
    assert found.hint


def test_no_credentials_as_azures_own_sdk_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Credentials, match="no Azure credentials") as caught, mapped(region="eastus"):
        EnvironmentCredential().get_token("https://management.azure.com/.default")
    assert "az login" in caught.value.hint


def test_an_authority_that_nobody_answers_at() -> None:
    credential = ClientSecretCredential(
        "t" * 8, "client", "secret", authority="https://127.0.0.1:9", disable_instance_discovery=True
    )
    client = ComputeManagementClient(credential, "s", base_url="https://127.0.0.1:9", retry_total=0)
    with pytest.raises(ProviderError, match="cannot be reached"), mapped(region="eastus"):
        client.virtual_machines.get("group", "name")


def test_the_sdk_does_not_write_on_the_terminal() -> None:
    code = (
        "import logging\n"
        "from cloudrun.providers.azure import errors\n"
        "logging.getLogger('azure.identity._internal').warning('EnvironmentCredential failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
