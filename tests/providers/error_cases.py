"""What the clouds refuse, and which error of ours each refusal is: what tests of all clouds need of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from botocore.exceptions import ClientError

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
from cloudrun.providers.aws import errors as aws
from cloudrun.providers.azure import codes
from cloudrun.providers.azure import errors as azure

Expected = Mapping[str, type[CloudrunError]]

# NoCapacity makes the road take its next candidate, NotOffered gives up on the type there, and so on.
OF_AWS: Expected = {
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
# Those that the catalogue has not.
OTHERS_OF_AWS: Expected = {
    "UnauthorizedOperation": Credentials,
    "ExpiredToken": Credentials,
    "InvalidClientTokenId": Credentials,
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": Credentials,
    "OptInRequired": Credentials,
    "PendingVerification": Credentials,
    "AddressLimitExceeded": Quota,
    "InvalidAMIID.NotFound": ImageNotFound,
    "VPCIdNotSpecified": NotOffered,
    "ServiceUnavailable": ProviderError,
}
OF_AZURE: Expected = {
    "AllocationFailed": NoCapacity,
    "ZonalAllocationFailed": NoCapacity,
    "OverconstrainedAllocationRequest": NoCapacity,
    "OverconstrainedZonalAllocationRequest": NoCapacity,
    "SkuNotAvailable": NotOffered,
    "InvalidTemplateDeployment": ProviderError,
    "OperationNotAllowed": ProviderError,
    "QuotaExceeded": Quota,
    "ResourceQuotaExceeded": Quota,
    "VariablePriceGreaterThanProvidedMaxPrice": NoCapacity,
    "MaxPriceValueInvalid": ProviderError,
    "MaxPriceUpdateRequiresVMToBeDeallocated": ProviderError,
    "VariablePricingIsNotSupportedForThisVMSize": NotOffered,
    "EvictionPolicyCanBeSetOnlyOnLowPriorityVirtualMachines": ProviderError,
    "LowPriVMNotSupportedInAvailabilitySet": ProviderError,
    "EphemeralOSDisksNotSupportedForSpotVMs": ProviderError,
    "BillingProfileChangeNotAllowedForAllocatedVMs": ProviderError,
}
OTHERS_OF_AZURE: Expected = {
    "AuthorizationFailed": Credentials,
    "ExpiredAuthenticationToken": Credentials,
    "MissingSubscriptionRegistration": Credentials,
    "PublicIPCountLimitReached": Quota,
    "SpotPriceGreaterThanProvidedMaxPrice": NoCapacity,
    "AzureSpotIsNotSupportedForThisVMSize": NotOffered,
    "LocationNotAvailableForResourceType": NotOffered,
    "PlatformImageNotFound": ImageNotFound,
    "DnsRecordInUse": ProviderError,
    "AnotherOperationInProgress": ProviderError,
    "TooManyRequests": ProviderError,
}


def aws_refusal(code: str, words: str = "", action: str = "RunInstances") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": words}}, action)


def met_at_aws(error: Exception) -> CloudrunError:
    """What comes out of a launch of p2.xlarge in us-east-1 that met this."""
    with (
        pytest.raises(CloudrunError) as caught,
        aws.mapped(region="us-east-1", type="p2.xlarge", what="launch"),
    ):
        raise error
    return caught.value


@dataclass(frozen=True, slots=True)
class Asked:
    method: str


@dataclass(frozen=True, slots=True)
class Answer:
    """As much of an HTTP response as azure.core's errors look at."""

    status_code: int
    body: Mapping[str, Any] | str
    method: str = "PUT"
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = "as it is"

    @property
    def request(self) -> Asked:
        return Asked(self.method)

    def text(self) -> str:
        return self.body if isinstance(self.body, str) else json.dumps(self.body)


def azure_refusal(
    code: str, words: str = "words of Azure", *, status: int = 409, method: str = "PUT", **more: Any
) -> HttpResponseError:
    answer = Answer(status, {"error": {"code": code, "message": words, **more}}, method)
    return HttpResponseError(response=answer)


def met_at_azure(error: Exception, type: str = "Standard_NC4as_T4_v3") -> CloudrunError:
    """What comes out of a launch in eastus that met this."""
    with pytest.raises(CloudrunError) as caught, azure.mapped(region="eastus", type=type, what="launch"):
        raise error
    return caught.value


@dataclass(frozen=True, slots=True)
class ErrorCase:
    """One cloud's table."""

    provider: str
    expected: Expected  # of the catalogue's codes
    others: Expected  # of some that the catalogue has not
    table: Any  # the module with KINDS, MORE and shipped
    refusal: Callable[[str, str], Exception]  # a code, and the cloud's own words
    met: Callable[[Exception], CloudrunError]
    tried: str  # what met it, as errors begin


CASES = (
    ErrorCase("aws", OF_AWS, OTHERS_OF_AWS, aws, aws_refusal, met_at_aws, "launch p2.xlarge in us-east-1: "),
    ErrorCase(
        "azure",
        OF_AZURE,
        OTHERS_OF_AZURE,
        codes,
        azure_refusal,
        met_at_azure,
        "launch Standard_NC4as_T4_v3 in eastus: ",
    ),
)
