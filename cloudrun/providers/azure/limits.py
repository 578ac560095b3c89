"""What on Azure does not end by itself: said in the plan, before anything is paid for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from azure.core.rest import HttpRequest

from cloudrun.errors import CloudrunError
from cloudrun.models import Offer
from cloudrun.providers.answers import kept
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.session import Session

KEPT = timedelta(days=1)
API_VERSION = "2022-04-01"  # of Microsoft.Authorization/permissions
GIVES_RIGHTS = (
    "Microsoft.Authorization/roleAssignments/write",
    "Microsoft.Authorization/roleDefinitions/write",
)
NOT_BY_ITSELF = (
    "this account may not let machines deallocate themselves: at the deadline they only switch off, "
    "and Azure bills on until `cloudrun stop`"
)
NOT_TOLD = "whether machines may deallocate themselves could not be asked: "


def limits(session: Session, offer: Offer) -> str:
    """One line for the plan, "" where machines deallocate themselves. The account is asked once a day; where
    it cannot be asked, the line says so. Raises nothing."""
    try:
        with mapped(region=offer.region, what="ask for rights"):
            rights = kept(session, "rights", KEPT, lambda: _permissions(session)).value
    except CloudrunError as error:
        return f"{NOT_TOLD}{error.message}"
    return "" if all(granted(rights, action) for action in GIVES_RIGHTS) else NOT_BY_ITSELF


def granted(permissions: Sequence[Mapping[str, Any]], action: str) -> bool:
    """Whether one of the permissions allows the action: its actions have it and its notActions have not
    ("Understand Azure role definitions"). A * stands for any characters; case does not count."""
    return any(
        _any_fits(each.get("actions"), action) and not _any_fits(each.get("notActions"), action)
        for each in permissions
    )


def _permissions(session: Session) -> list[Any]:
    """What this account may do in the subscription, one entry for each role that it has there."""
    url = f"{session.scope}/providers/Microsoft.Authorization/permissions"
    found: list[Any] = []
    while url:
        query = {} if "api-version=" in url else {"api-version": API_VERSION}
        answer = session.resources.send_request(HttpRequest("GET", url, params=query))
        answer.raise_for_status()
        found += answer.json()["value"]
        url = answer.json().get("nextLink") or ""
    return found


def _any_fits(patterns: Sequence[str] | None, action: str) -> bool:
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), action, re.IGNORECASE)
        for pattern in patterns or ()
    )
