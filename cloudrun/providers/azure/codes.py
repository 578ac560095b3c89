"""The codes of Azure in our words, and what each kind of them becomes.

shipped() has the rows of catalog/errors.csv, MORE those about the account, the line and the request, which
are no facts about renting. MORE's codes are Resource Manager's ("Troubleshoot common Azure deployment
errors"), Microsoft.Compute's ("Error messages for virtual machine allocation", "Troubleshooting API
throttling errors", "Error messages for Azure Spot Virtual Machines") and Microsoft.Network's, as
Microsoft's documentation and public reports name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from cloudrun.catalog.loader import read_csv
from cloudrun.errors import (
    Credentials,
    ImageNotFound,
    NoCapacity,
    NotOffered,
    ProviderError,
    Quota,
)
from cloudrun.providers.refusals import Kind, Row, rows_of

ROLE = "provisioning/policies/azure-role.json"

KINDS: Mapping[str, Kind] = {
    "capacity": Kind(NoCapacity, quotes=False),
    "price": Kind(NoCapacity, "raise --max-price, or leave it out: then on-demand's price is the most"),
    "quota": Kind(
        Quota, "ask Azure for more in its portal (Quotas), end something there, or name another --region"
    ),
    "retired or unavailable": Kind(NotOffered, "name another --region or type: cloudrun offers lists them"),
    "image": Kind(ImageNotFound, "name another stack, or mend [images] in its file"),
    "credentials": Kind(Credentials),
    "rights": Kind(Credentials, f"the subscription's owner can grant it: {ROLE} lists all that is needed"),
    "rate": Kind(ProviderError, "wait a minute, then try again", quotes=False),
    "timing": Kind(ProviderError, "try again in a few seconds"),
    "request": Kind(ProviderError),
    "trouble": Kind(
        ProviderError, "try again later; https://azure.status.microsoft shows what Azure knows of it"
    ),
}

LOGIN = "run `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
_SUBSCRIPTION = "check AZURE_SUBSCRIPTION_ID; `az account list` shows yours"
_LOOK = "look with: cloudrun machines list"
_OTHER_TYPE = "name another type or leave spot out: cloudrun offers lists them"

MORE: Mapping[str, Row] = {
    "AuthenticationFailed": Row("credentials", "Azure does not accept these credentials", LOGIN),
    "InvalidAuthenticationToken": Row("credentials", "Azure does not accept these credentials", LOGIN),
    "InvalidAuthenticationTokenTenant": Row(
        "credentials", "these credentials belong to another tenant than the subscription", LOGIN
    ),
    "ExpiredAuthenticationToken": Row("credentials", "the session of these credentials is over", LOGIN),
    "SubscriptionNotFound": Row("credentials", "these credentials see no such subscription", _SUBSCRIPTION),
    "InvalidSubscriptionId": Row("credentials", "that is no id of a subscription", _SUBSCRIPTION),
    "ReadOnlyDisabledSubscription": Row(
        "credentials", "the subscription is switched off", "its owner can enable it in the Azure portal"
    ),
    "MissingSubscriptionRegistration": Row(
        "credentials",
        "the subscription has not been told to use this part of Azure",
        "have its owner run once: az provider register --namespace Microsoft.Compute",
    ),
    "SubscriptionNotRegistered": Row(
        "credentials",
        "the subscription has not been told to use this part of Azure",
        "have its owner run once: az provider register --namespace Microsoft.Compute",
    ),
    "MarketplacePurchaseEligibilityFailed": Row(
        "credentials", "the terms of this image are not accepted", "run: az vm image terms accept --urn URN"
    ),
    "AuthorizationFailed": Row("rights", "this account may not do that"),
    "LinkedAuthorizationFailed": Row("rights", "this account may not do that"),
    "RequestDisallowedByPolicy": Row(
        "request", "a policy of the subscription forbids it", "ask who keeps the subscription's policies"
    ),
    "ScopeLocked": Row("request", "a lock forbids it", "remove the lock in the Azure portal, then try again"),
    "TooManyRequests": Row("rate", "too many API calls"),
    "SubscriptionRequestsThrottled": Row("rate", "too many API calls"),
    "PublicIPCountLimitReached": Row("quota", "the region's limit on public addresses"),
    "IPv4StandardSkuPublicIpCountLimitReached": Row("quota", "the region's limit on public addresses"),
    "LocationNotAvailableForResourceType": Row("retired or unavailable", "Azure does not have that there"),
    "LocationNotAvailableForResourceGroup": Row("retired or unavailable", "Azure has no such region"),
    "NoRegisteredProviderFound": Row("retired or unavailable", "Azure does not have that there"),
    "RequestDisallowedByAzure": Row(
        "retired or unavailable", "Azure does not let this subscription use that region"
    ),
    "AzureSpotIsNotSupportedForThisVMSize": Row(
        "retired or unavailable", "this size cannot be spot", _OTHER_TYPE
    ),
    "SpotPriceGreaterThanProvidedMaxPrice": Row("price", "your maximum is under the current spot price"),
    "ImageNotFound": Row("image", "there is no such image"),
    "PlatformImageNotFound": Row("image", "nobody publishes that image there"),
    "ImageVersionDeprecated": Row("image", "the image cannot be used any more"),
    "ResourceGroupNotFound": Row(
        "request", "there is no such resource group", "name one that exists: `az group list` shows yours"
    ),
    "ResourceNotFound": Row("request", "there is no such thing", _LOOK),
    "NotFound": Row("request", "there is no such thing", _LOOK),
    "ParentResourceNotFound": Row("request", "what it belongs to is not there", _LOOK),
    "DnsRecordInUse": Row("request", "somebody has that DNS name", "choose another --dns-label"),
    "PropertyChangeNotAllowed": Row(
        "request", "that cannot be changed any more", "terminate it, and launch another"
    ),
    "ResourceGroupBeingDeleted": Row("timing", "its resource group is being deleted"),
    "Conflict": Row("timing", "something else is being done to it"),
    "AnotherOperationInProgress": Row("timing", "something else is being done to it"),
    "OperationPreempted": Row("timing", "something newer was done to it"),
    "RetryableError": Row("timing", "Azure was busy with something next to it"),
    "NicReservedForAnotherVm": Row("timing", "Azure holds its network card for another machine a while"),
    "PrincipalNotFound": Row("timing", "Azure does not know the machine's new identity everywhere yet"),
    "InternalServerError": Row("trouble", "Azure made a mistake"),
    "InternalExecutionError": Row("trouble", "Azure made a mistake"),
    "InternalOperationError": Row("trouble", "Azure made a mistake"),
    "NetworkingInternalOperationError": Row("trouble", "Azure made a mistake"),
    "ServiceUnavailable": Row("trouble", "Azure does not answer right now"),
    "ServerTimeout": Row("trouble", "Azure did not answer in time"),
    "GatewayTimeout": Row("trouble", "Azure did not answer in time"),
    "OSProvisioningTimedOut": Row("trouble", "the machine's system did not come up in time"),
    "VMStartTimedOut": Row("trouble", "the machine did not start in time"),
}

# Rows of errors.csv that the road would take wrongly, or that only the table's reader understands: no other
# candidate has a better price for a bad value, and where one size cannot be spot another may.
HERE: Mapping[str, Row] = {
    "OperationNotAllowed": Row("request", "that is not allowed in the state that it is in", _LOOK),
    "QuotaExceeded": Row("quota", "the subscription may not have that much there"),
    "InvalidTemplateDeployment": Row(
        "request", "the request did not pass Azure's checks", "read Azure's words"
    ),
    "OverconstrainedAllocationRequest": Row(
        "capacity", "no room for this size as it was asked for", "another size or region, or leave spot out"
    ),
    "OverconstrainedZonalAllocationRequest": Row(
        "capacity", "no room in that zone for this size as it was asked for", "another zone, size or region"
    ),
    "SkuNotAvailable": Row(
        "retired or unavailable", "this subscription cannot have that size there, or not now as spot"
    ),
    "MaxPriceValueInvalid": Row(
        "request", "the maximum must be above 0, with at most five decimals", "give another --max-price"
    ),
    "MaxPriceUpdateRequiresVMToBeDeallocated": Row(
        "request", "the maximum can be changed only while the machine is stopped", "cloudrun stop, then again"
    ),
    "VariablePricingIsNotSupportedForThisVMSize": Row(
        "retired or unavailable", "this size cannot be spot", _OTHER_TYPE
    ),
}
BAD_TYPE = Row("retired or unavailable", "Azure does not know this size there")
BAD_GENERATION = Row("image", "this size cannot boot an image of that generation")

# These say nothing while another code stands inside.
WRAPPERS = (
    "InvalidTemplateDeployment",
    "DeploymentFailed",
    "ResourceDeploymentFailure",
    "MultipleErrorsOccurred",
    "BadRequest",
    "Conflict",
    "NotFound",
    "OperationNotAllowed",
)
OF_STATUS: Mapping[int, str] = {  # for answers without a code
    401: "InvalidAuthenticationToken",
    403: "AuthorizationFailed",
    404: "ResourceNotFound",
    408: "ServerTimeout",
    409: "Conflict",
    429: "TooManyRequests",
    500: "InternalServerError",
    502: "ServiceUnavailable",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


@cache
def shipped() -> Mapping[str, Row]:
    """The codes of catalog/errors.csv."""
    return {**rows_of(read_csv("errors.csv"), ("azure",)), **HERE}


def find_row(code: str) -> Row | None:
    return MORE.get(code) or shipped().get(code)
