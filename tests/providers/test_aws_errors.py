"""What the words of AWS tell beside their code, and what goes wrong before it answers."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto
from error_cases import aws_refusal as refusal
from error_cases import met_at_aws as met

from cloudrun.errors import (
    CloudrunError,
    Credentials,
    NoCapacity,
    NotOffered,
    ProviderError,
)
from cloudrun.providers.aws.errors import error_for


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


def test_a_status_of_a_spot_request_is_told_like_a_code() -> None:
    error = error_for("price-too-low", region="us-east-1", type="p2.xlarge", what="spot request for")
    assert isinstance(error, NoCapacity)
    assert error.message.startswith("spot request for p2.xlarge in us-east-1: maximum below the spot price")
