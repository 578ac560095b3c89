"""Every code of AWS that the catalogue has, and those of account, line and request, in our words."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError

from cloudrun.catalog.loader import read_csv
from cloudrun.errors import (
    CloudrunError,
    Credentials,
    ImageNotFound,
    NoCapacity,
    NotOffered,
    Preempted,
    ProviderError,
    Quota,
    Refused,
)
from cloudrun.providers.aws.errors import KINDS, MORE, error_for, mapped, shipped

# NoCapacity makes the road take its next candidate, NotOffered gives up on the type there, and so on.
EXPECTED: dict[str, type[CloudrunError]] = {
    "InsufficientInstanceCapacity": NoCapacity,
    "UnfulfillableCapacity": NoCapacity,
    "InsufficientCapacity": NoCapacity,
    "ReservationCapacityExceeded": NoCapacity,
    "InsufficientVolumeCapacity": NoCapacity,
    "VcpuLimitExceeded": Quota,
    "InstanceLimitExceeded": Quota,
    "MaxSpotInstanceCountExceeded": Quota,
    "VolumeLimitExceeded": Quota,
    "InsufficientFreeAddressesInSubnet": NoCapacity,
    "SpotMaxPriceTooLow": NoCapacity,
    "Unsupported": NotOffered,
    "InvalidInstanceID.NotFound": ProviderError,
    "AuthFailure": Credentials,
    "RequestLimitExceeded": ProviderError,
    "capacity-not-available": NoCapacity,
    "price-too-low": NoCapacity,
    "constraint-not-fulfillable": ProviderError,
    "bad-parameters": ProviderError,
    "limit-exceeded": Quota,
    "marked-for-termination": Preempted,
    "instance-terminated-no-capacity": Preempted,
    "instance-terminated-by-price": Preempted,
}


def refusal(code: str, words: str = "", action: str = "RunInstances") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": words}}, action)


def met(error: Exception) -> CloudrunError:
    """What comes out of a launch of p2.xlarge in us-east-1 that met this."""
    with pytest.raises(CloudrunError) as caught, mapped(region="us-east-1", type="p2.xlarge", what="launch"):
        raise error
    return caught.value


def test_the_expectation_names_every_code_of_the_catalogue() -> None:
    codes = {row["code"] for row in read_csv("errors.csv") if row["provider"].startswith("aws")}
    assert codes == set(EXPECTED) == set(shipped())


@pytest.mark.parametrize("code", EXPECTED)
def test_a_code_of_the_catalogue(code: str) -> None:
    error = met(refusal(code, "words of AWS"))
    assert type(error) is EXPECTED[code]
    assert error.message.startswith("launch p2.xlarge in us-east-1: ")
    assert f"({code})" in error.message
    assert error.hint
    assert "same" not in error.hint.split()
    assert ".csv" not in error.message + error.hint


@pytest.mark.parametrize("code", MORE)
def test_a_code_of_account_line_or_request(code: str) -> None:
    error = met(refusal(code))
    assert type(error) is KINDS[MORE[code].kind].error
    assert f"({code})" in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("UnauthorizedOperation", Credentials),
        ("ExpiredToken", Credentials),
        ("InvalidClientTokenId", Credentials),
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", Credentials),
        ("OptInRequired", Credentials),
        ("PendingVerification", Credentials),
        ("AddressLimitExceeded", Quota),
        ("InvalidAMIID.NotFound", ImageNotFound),
        ("VPCIdNotSpecified", NotOffered),
        ("ServiceUnavailable", ProviderError),
    ],
)
def test_a_code_that_the_catalogue_has_not(code: str, expected: type[CloudrunError]) -> None:
    assert type(met(refusal(code))) is expected


def test_no_code_has_two_rows() -> None:
    assert not set(MORE) & set(shipped())


def test_a_missing_right_is_named_as_a_policy_names_it() -> None:
    said = (
        "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/ann is not "
        "authorized to perform: ec2:RunInstances on resource: arn:aws:ec2:us-east-1:123456789012:instance/* "
        "because no identity-based policy allows it. Encoded authorization failure message: 4GIOHlTkIaWHQD0Q"
    )
    error = met(refusal("UnauthorizedOperation", said))
    assert isinstance(error, Credentials)
    assert error.message == (
        "launch p2.xlarge in us-east-1: these credentials may not do that: "
        "ec2:RunInstances (UnauthorizedOperation)"
    )
    assert "provisioning/policies/aws.json" in error.hint


def test_a_missing_right_that_aws_does_not_name_is_that_of_the_call() -> None:
    error = met(refusal("AccessDeniedException", "no", "ListServiceQuotas"))
    assert ": ListServiceQuotas (AccessDeniedException)" in error.message


def test_the_limit_that_aws_names_is_shown_and_its_long_tail_is_not() -> None:
    said = "You have requested more vCPU capacity than your current vCPU limit of 0 allows. " + "x" * 500
    error = met(refusal("VcpuLimitExceeded", said))
    assert "limit of 0 allows" in error.message
    assert len(error.message) < 500


def test_throttled_is_said() -> None:
    assert "throttled" in met(refusal("RequestLimitExceeded")).message
    assert "throttled" in met(refusal("ThrottlingException")).message


def test_a_type_that_ec2_never_had() -> None:
    error = met(refusal("InvalidParameterValue", "Invalid value 'p2.xlarge' for InstanceType."))
    assert isinstance(error, NotOffered)


def test_another_bad_value_is_no_bad_type() -> None:
    error = met(refusal("InvalidParameterValue", "Value (x) for parameter availabilityZone is invalid."))
    assert type(error) is ProviderError
    assert "availabilityZone is invalid" in error.message


def test_an_unknown_code_is_passed_on_with_its_words() -> None:
    error = met(refusal("BrandNewCode", "something is wrong"))
    assert type(error) is ProviderError
    assert error.message == "launch p2.xlarge in us-east-1: AWS says BrandNewCode: something is wrong"


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (boto.NoCredentialsError(), Credentials, "no AWS credentials"),
        (boto.PartialCredentialsError(provider="env", cred_var="aws_secret_access_key"), Credentials, "half"),
        (boto.ProfileNotFound(profile="work"), Credentials, "work"),
        (boto.UnauthorizedSSOTokenError(), Credentials, "SSO"),
        (boto.NoRegionError(), Credentials, "no AWS region"),
        (boto.EndpointConnectionError(endpoint_url="https://ec2.x"), ProviderError, "cannot be reached"),
        (boto.ConnectTimeoutError(endpoint_url="https://ec2.x"), ProviderError, "cannot be reached"),
        (boto.ReadTimeoutError(endpoint_url="https://ec2.x"), ProviderError, "cannot be reached"),
        (boto.SSLError(endpoint_url="https://ec2.x", error="bad"), ProviderError, "cannot be reached"),
        (boto.ProxyConnectionError(proxy_url="http://p"), ProviderError, "cannot be reached"),
        (boto.ParamValidationError(report="bad value"), ProviderError, "bad value"),
    ],
)
def test_what_goes_wrong_before_aws_answers(
    error: Exception, expected: type[CloudrunError], said: str
) -> None:
    found = met(error)
    assert type(found) is expected
    assert said in found.message
    assert found.hint


def test_our_own_errors_pass_as_they_are() -> None:
    ours = Refused("a disk does not shrink", hint="none")
    assert met(ours) is ours


def test_a_status_of_a_spot_request_is_told_like_a_code() -> None:
    error = error_for("price-too-low", region="us-east-1", type="p2.xlarge", what="spot request for")
    assert isinstance(error, NoCapacity)
    assert error.message.startswith("spot request for p2.xlarge in us-east-1: maximum below the spot price")


def test_the_cause_is_kept_for_whoever_debugs() -> None:
    cause = refusal("Unsupported")
    assert met(cause).__cause__ is cause
