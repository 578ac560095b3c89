"""A provider under contract, and how its machines come to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from servers import OpenSshServer

from cloudrun.models import Machine
from cloudrun.providers.attached import AttachedProvider
from cloudrun.providers.base import Provider


@dataclass
class Case:
    """A provider and how a machine of it comes to be, by name."""

    provider: Provider
    make: Callable[[str], Machine]
    outlives_terminate: bool  # the computer behind it stays when the machine is ended


def attach(provider: AttachedProvider, name: str, host: OpenSshServer) -> Machine:
    address = host.address
    target = f"{address.user}@{address.host}:{address.port}"
    return provider.attach(
        name, target, host_key=provider.scan_host_key(target), key_path=str(address.key_path)
    )
