"""A provider under contract, and how its machines come to be."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from rented_cloud import RentedCloud
from servers import OpenSshServer

from cloudrun.models import Machine, Offer
from cloudrun.providers.attached import AttachedProvider
from cloudrun.providers.base import Provider


@dataclass
class Case:
    """A provider and how a machine of it comes to be, by name."""

    provider: Provider
    make: Callable[[str], Machine]
    outlives_terminate: bool  # the computer behind it stays when the machine is ended
    rents: bool = False  # it has offers of the markets that cost money


def attach(provider: AttachedProvider, name: str, host: OpenSshServer) -> Machine:
    address = host.address
    target = f"{address.user}@{address.host}:{address.port}"
    return provider.attach(
        name, target, host_key=provider.scan_host_key(target), key_path=str(address.key_path)
    )


def rent(cloud: RentedCloud, name: str, offer: Offer) -> Machine:
    return cloud.launch_running(name, token=secrets.token_hex(8), offer=offer)
