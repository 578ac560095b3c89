"""The address of this computer as a cloud sees it, which firewalls let in."""

from __future__ import annotations

import http.client
import ipaddress
import urllib.error
import urllib.request

from cloudrun.config import Settings
from cloudrun.errors import ProviderError

TIMEOUT_S = 10.0
LONGEST = 64  # bytes of an answer that may be an address


def my_address(settings: Settings) -> str:
    """The IPv4 address with which this computer reaches the cloud, as the service at Settings.address_url
    tells it. Blocking, one request. Raises ProviderError."""
    url = settings.address_url
    hint = "check the network, or set CLOUDRUN_ADDRESS_URL to a service that answers with your IPv4 address"
    if not url.startswith(("http://", "https://")):
        raise ProviderError(f"the address service {url!r} is no web address", hint=hint)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  # http(s) only, above
            text = answer.read(LONGEST).decode("ascii").strip()
        return str(ipaddress.IPv4Address(text))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ProviderError(f"{url} does not tell this computer's address: {error}", hint=hint) from error
