"""A provider under contract, and how its machines come to be."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import aws_help
import azure_help
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
    rents: bool = False  # it has offers of the markets that cost money


def attach(provider: AttachedProvider, name: str, host: OpenSshServer) -> Machine:
    address = host.address
    target = f"{address.user}@{address.host}:{address.port}"
    return provider.attach(
        name, target, host_key=provider.scan_host_key(target), key_path=str(address.key_path)
    )


def rent_aws(cloud: aws_help.Cloud, name: str) -> Machine:
    return cloud.launch_running(name, token=secrets.token_hex(8), offer=aws_help.CPU)


def rent_azure(cloud: azure_help.Cloud, name: str) -> Machine:
    return cloud.launch_running(name, token=secrets.token_hex(8), offer=azure_help.CPU)
