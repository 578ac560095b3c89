"""DNS names of machines: LABEL.REGION.cloudapp.azure.com, which stays while the address behind it changes.

A label is unique in its region over all of Azure's customers, and is given with the public address.
"""

from __future__ import annotations

import re

from cloudrun.errors import Refused
from cloudrun.providers.azure.arm import shown, shown_or_none
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.session import Session

# REST reference, "Check Dns Name Availability", domainNameLabel.
LABEL = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]")
DOMAIN = "cloudapp.azure.com"


def dns_name(label: str, region: str) -> str:
    """The whole name, as Azure makes it of a label."""
    return f"{label}.{region}.{DOMAIN}"


def check_label(label: str) -> None:
    """Raise Refused for a label that no region would take. No I/O."""
    if LABEL.fullmatch(label):
        return
    raise Refused(
        f"{label!r} is no label of a DNS name at Azure",
        hint="3 to 63 small letters, digits and dashes; a letter first, no dash last: --dns-label my-k80",
    )


def refuse_taken(session: Session, region: str, label: str, *, group: str, address: str) -> None:
    """Raise Refused where somebody has that name in the region, unless our public address of that name in
    that group has it: a launch that is repeated meets its own. One call for a free name, two for a taken one.
    """
    check_label(label)
    network = session.network
    with mapped(region=region, what="ask for the DNS name"):
        answer = shown(network.check_dns_name_availability, region, domain_name_label=label)
        if answer["available"]:
            return
        own = shown_or_none(network.public_ip_addresses.get, group, address) or {}
    settings = own.get("properties", {}).get("dnsSettings") or {}
    if settings.get("domainNameLabel") == label:
        return
    raise Refused(
        f"{dns_name(label, region)} is taken",
        hint="choose another --dns-label; it is unique in its region over all of Azure's customers",
    )
