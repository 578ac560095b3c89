"""What AWS refuses, in our words: botocore's errors mapped to our tree by one table.

The rows of catalog/errors.csv are the table's first part, MORE its second: codes about the account, the
line and the request, which are no facts about renting. A kind says which error of ours a code becomes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

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
)
from cloudrun.providers.refusals import Kind, Row, place, rows_of, shortened

TABLES = ("aws", "aws-spot-status")  # providers of errors.csv: codes of calls, and of spot requests
POLICY = "provisioning/policies/aws.json"


KINDS: Mapping[str, Kind] = {
    "capacity": Kind(NoCapacity, quotes=False),
    "price": Kind(NoCapacity, "raise --max-price, or leave it out: then on-demand's price is the most"),
    "network": Kind(NoCapacity, quotes=False),  # a subnet without free addresses: elsewhere it may do
    "quota": Kind(Quota, "ask AWS for more in Service Quotas, end something there, or name another --region"),
    "retired or unavailable": Kind(NotOffered, "name another --region or type: cloudrun offers lists them"),
    "image": Kind(ImageNotFound, "name another stack, or mend [images] in its file"),
    "credentials": Kind(Credentials),
    "rights": Kind(Credentials, f"the account's owner can grant it: {POLICY} lists all that is needed"),
    "rate": Kind(ProviderError, "wait a minute, then try again", quotes=False),
    "timing": Kind(ProviderError, "try again in a few seconds", quotes=False),
    "request": Kind(ProviderError),
    "trouble": Kind(
        ProviderError, "try again later; https://health.aws.amazon.com shows what AWS knows of it"
    ),
    "interruption": Kind(Preempted),
}

_KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE and ~/.aws, or run: aws configure"
_AGAIN = "get new ones: aws sso login, or new keys in AWS_* variables"
_WAIT = "AWS writes an e-mail when it is done; a new account takes minutes to hours"

# Codes of "Error codes for the Amazon EC2 API", "Common Errors" of the IAM and Service Quotas references.
MORE: Mapping[str, Row] = {
    "UnauthorizedOperation": Row("rights", "these credentials may not do that"),
    "AccessDenied": Row("rights", "these credentials may not do that"),
    "AccessDeniedException": Row("rights", "these credentials may not do that"),
    "ExpiredToken": Row("credentials", "the session of these credentials is over", _AGAIN),
    "ExpiredTokenException": Row("credentials", "the session of these credentials is over", _AGAIN),
    "RequestExpired": Row(
        "credentials", "the request came too late", "set this computer's clock, and log in again"
    ),
    "InvalidClientTokenId": Row("credentials", "AWS does not know this access key", _KEYS),
    "UnrecognizedClientException": Row("credentials", "AWS does not know this access key", _KEYS),
    "InvalidAccessKeyId": Row("credentials", "AWS does not know this access key", _KEYS),
    "MissingAuthenticationToken": Row("credentials", "the request carried no credentials", _KEYS),
    "SignatureDoesNotMatch": Row("credentials", "the secret key does not belong to the access key", _KEYS),
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": Row(
        "credentials",
        "the first spot launch of an account makes a role, and these credentials may not",
        "have its owner run once: aws iam create-service-linked-role --aws-service-name spot.amazonaws.com",
    ),
    "OptInRequired": Row(
        "credentials",
        "the account is not signed up for this, or the region is not enabled",
        "enable the region in the AWS console (Account, AWS Regions), or name another --region",
    ),
    "PendingVerification": Row("credentials", "AWS is still checking this account", _WAIT),
    "Blocked": Row("credentials", "AWS has blocked this account", "ask AWS support"),
    "BadDigest": Row("timing", "what arrived at S3 is not what was sent"),
    "SlowDown": Row("rate", "too many API calls"),
    "Throttling": Row("rate", "too many API calls"),
    "ThrottlingException": Row("rate", "too many API calls"),
    "TooManyRequestsException": Row("rate", "too many API calls"),
    "AddressLimitExceeded": Row("quota", "the region's limit on fixed addresses"),
    "SecurityGroupLimitExceeded": Row("quota", "the region's limit on security groups"),
    "RulesPerSecurityGroupLimitExceeded": Row("quota", "the limit on rules of one security group"),
    "InvalidInstanceType": Row("retired or unavailable", "AWS does not know this type there"),
    "InvalidAMIID.NotFound": Row("image", "there is no such image"),
    "InvalidAMIID.Malformed": Row("image", "that is no id of an image"),
    "InvalidAMIID.Unavailable": Row("image", "the image cannot be used any more"),
    "InvalidAMIName.Duplicate": Row(
        "request", "an image of that name is there already", "give another --name"
    ),
    "InvalidAMIName.Malformed": Row(
        "request", "AWS does not take that name for an image", "give another --name"
    ),
    "InvalidSnapshot.InUse": Row("request", "an image needs that snapshot", "delete the image first"),
    "IncorrectState": Row("request", "the machine is in no state for that", "look with: cloudrun machines"),
    "SnapshotCreationPerVolumeRateExceeded": Row("timing", "that disk was kept as a snapshot a moment ago"),
    "ConcurrentSnapshotLimitExceeded": Row("quota", "the limit on snapshots that are made at a time"),
    "PendingSnapshotLimitExceeded": Row("quota", "the limit on snapshots that are made at a time"),
    "SnapshotLimitExceeded": Row("quota", "the region's limit on snapshots"),
    "ParameterNotFound": Row("image", "nobody publishes that image there"),
    "VPCIdNotSpecified": Row(
        "retired or unavailable", "the region has no default network", "name a subnet of yours with --subnet"
    ),
    "InvalidSubnetID.NotFound": Row(
        "request", "there is no such subnet", "give one of that region with --subnet"
    ),
    "DependencyViolation": Row("request", "something still needs it", "try again when that is gone"),
    "IncorrectInstanceState": Row(
        "request", "the machine is in no state for that", "look with: cloudrun machines"
    ),
    "VolumeModificationRateExceeded": Row(
        "request", "a disk can be changed once in six hours", "wait, or launch with a bigger --disk"
    ),
    "InternalError": Row("trouble", "AWS made a mistake"),
    "InternalFailure": Row("trouble", "AWS made a mistake"),
    "ServiceUnavailable": Row("trouble", "AWS does not answer right now"),
    "Unavailable": Row("trouble", "AWS does not answer right now"),
}

_NO_LINE = (boto.HTTPClientError, boto.ConnectionError)  # refused, timed out, closed, TLS, proxy
_NO_LOGIN = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.NoAuthTokenError)
_BAD_LOGIN = (
    boto.CredentialRetrievalError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
    boto.UnknownCredentialError,
    boto.ProfileNotFound,
    boto.ConfigParseError,
    boto.InvalidConfigError,
    getattr(boto, "LoginError", boto.SSOError),  # of `aws login`, which older boto3 does not have
)

_DENIED_ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
_ENCODED = re.compile(r"\s*Encoded authorization failure message:.*", re.DOTALL)
_BAD_TYPE = re.compile(r"instance ?type", re.IGNORECASE)


@contextmanager
def mapped(*, region: str, type: str = "", what: str = "") -> Iterator[None]:
    """Turn botocore's errors into ours. `what` was tried, in words: "launch"."""
    try:
        yield
    except ClientError as error:
        raise _client_error(error, region=region, type=type, what=what) from error
    except BotoCoreError as error:
        raise _local_error(error, region=region, what=what) from error


def error_for(
    code: str, words: str = "", *, region: str, type: str = "", what: str = "", action: str = ""
) -> CloudrunError:
    """The error of ours for a code of AWS, that of a call or of a spot request. `words` are AWS's own,
    `action` is the API's name of what was called."""
    where = place("AWS", region=region, type=type, what=what)
    row = MORE.get(code) or shipped().get(code)
    words = shortened(_ENCODED.sub("", words))
    if row is None:
        return ProviderError(
            f"{where}: AWS says {code or 'no'}: {words}".rstrip(": "),
            hint="the documentation of the AWS API explains its codes",
        )
    kind = KINDS[row.kind]
    quoted = f"; AWS says: {words}" if kind.quotes and words else ""
    if row.kind == "rights":
        quoted = f": {_denied(words, action)}"
    throttled = "throttled, " if row.kind == "rate" else ""
    return kind.error(f"{where}: {throttled}{row.meaning}{quoted} ({code})", hint=kind.hint or row.hint)


@cache
def shipped() -> Mapping[str, Row]:
    """The codes of catalog/errors.csv."""
    return rows_of(read_csv("errors.csv"), TABLES)


def _client_error(error: ClientError, *, region: str, type: str, what: str) -> CloudrunError:
    answer: Mapping[str, Any] = error.response.get("Error", {})
    code, words = str(answer.get("Code", "")), str(answer.get("Message", ""))
    if code == "InvalidParameterValue" and type and _BAD_TYPE.search(words):
        code = "InvalidInstanceType"  # EC2 has no code of its own for a type that it never had
    return error_for(code, words, region=region, type=type, what=what, action=error.operation_name)


def _local_error(error: BotoCoreError, *, region: str, what: str) -> CloudrunError:
    """For what went wrong before AWS could answer."""
    where = place("AWS", region=region, what=what)
    if isinstance(error, _NO_LOGIN):
        return Credentials(f"{where}: there are no AWS credentials, or only half of them", hint=_KEYS)
    if isinstance(error, _BAD_LOGIN):
        return Credentials(f"{where}: {error}", hint=_KEYS)
    if isinstance(error, boto.NoRegionError):
        return Credentials(f"{where}: no AWS region is set", hint="export AWS_DEFAULT_REGION=us-east-1")
    if isinstance(error, _NO_LINE):
        return ProviderError(
            f"{where}: AWS cannot be reached: {error}",
            hint="check the network, HTTPS_PROXY and AWS_ENDPOINT_URL, and that the region exists",
        )
    return ProviderError(f"{where}: {error}", hint="nothing was asked of AWS; check the command's values")


def _denied(words: str, action: str) -> str:
    """The right that is missing, as a policy names it where AWS says so."""
    found = _DENIED_ACTION.search(words)
    return found[1] if found else action or "unnamed"
