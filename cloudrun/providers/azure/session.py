"""The account as azure-identity finds it: credentials, subscription, and the clients of Azure's SDK.

Credentials are azure-identity's own business (AZURE_* variables, `az login`, an identity of the computer);
nothing of them is kept here. Constructing a Session does no I/O and imports no SDK: azure.mgmt is large, and
most commands ask Azure nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cloudrun.config import AZURE_ENDPOINT, Settings
from cloudrun.errors import Credentials

SCOPE = "https://management.azure.com/.default"  # also where the endpoint is another one
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
# Of azure-core's retry policy: broken lines, 408, 429 and 5xx; Retry-After is respected. All our PUTs and
# DELETEs may be sent twice, they name what they make.
RETRIES = 4
LONGEST_WAIT_S = 8.0  # between two tries where Azure names no time
SDK = ("azure.identity", "azure.mgmt.authorization", "azure.mgmt.compute", "azure.mgmt.network")
PROFILE = "azureProfile.json"  # of `az login`, in ~/.azure or AZURE_CONFIG_DIR


def require_sdk() -> None:
    """Raise ImportError where a part of Azure's SDK is not installed. Imports none of it."""
    for name in (*SDK, "azure.mgmt.resource"):
        if find_spec(name) is None:  # for a missing parent it raises ModuleNotFoundError itself
            raise ImportError(f"{name} is not installed")


class Session:
    """One account, one subscription. Safe for many threads: the clients are, their making is locked here."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._credential: Any = None
        self._clients: dict[str, Any] = {}

    @property
    def simulated(self) -> bool:
        """Whether the endpoint is a rehearsal cloud."""
        return self.settings.sim is not None

    @property
    def subscription(self) -> str:
        """Id of the subscription that is used: AZURE_SUBSCRIPTION_ID, or the default one of `az login`.
        Raises Credentials where neither names one."""
        found = os.environ.get("AZURE_SUBSCRIPTION_ID", "") or _default_subscription()
        if not found:
            raise Credentials(
                "no Azure subscription is set",
                hint="run `az login`, or set AZURE_SUBSCRIPTION_ID and azure-identity's AZURE_* variables",
            )
        return found

    @property
    def scope(self) -> str:
        """The subscription as a path, with which the ids of its resources begin."""
        return f"/subscriptions/{self.subscription}"

    @property
    def compute(self) -> Any:
        """ComputeManagementClient: machines, disks, sizes, usages."""

        def make() -> Any:
            from azure.mgmt.compute import ComputeManagementClient

            return ComputeManagementClient

        return self._client("compute", make)

    @property
    def network(self) -> Any:
        """NetworkManagementClient."""

        def make() -> Any:
            from azure.mgmt.network import NetworkManagementClient

            return NetworkManagementClient

        return self._client("network", make)

    @property
    def resources(self) -> Any:
        """ResourceManagementClient: groups, tags, and resources of every kind."""

        def make() -> Any:
            from azure.mgmt.resource.resources import ResourceManagementClient

            return ResourceManagementClient

        return self._client("resources", make)

    @property
    def authorization(self) -> Any:
        """AuthorizationManagementClient: roles, their assignments, and what this account may do."""

        def make() -> Any:
            from azure.mgmt.authorization import AuthorizationManagementClient

            return AuthorizationManagementClient

        return self._client("authorization", make)

    @property
    def credential(self) -> Any:
        """azure-identity's; asks for a token on use. In a rehearsal only the variables count."""
        with self._lock:
            if self._credential is None:
                from azure.identity import DefaultAzureCredential, EnvironmentCredential

                # Instance discovery would ask Microsoft about the rehearsal's own authority.
                self._credential = (
                    EnvironmentCredential(disable_instance_discovery=True)
                    if self.simulated
                    else DefaultAzureCredential()
                )
            return self._credential

    def fingerprint(self) -> str:
        """A short name of account and endpoint, for what is kept of answers. Raises Credentials."""
        who = (self.subscription, os.environ.get("AZURE_CLIENT_ID", ""), self.settings.azure_endpoint)
        return hashlib.sha256("\n".join(who).encode()).hexdigest()[:12]

    def _client(self, name: str, find_class: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._clients:
                self._clients[name] = find_class()(
                    self.credential,
                    self.subscription,
                    base_url=self.settings.azure_endpoint or AZURE_ENDPOINT,
                    credential_scopes=[SCOPE],
                    connection_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=READ_TIMEOUT_S,
                    retry_total=RETRIES,
                    retry_backoff_max=LONGEST_WAIT_S,
                )
            return self._clients[name]


def _default_subscription() -> str:
    """Of `az login`; "" where there is none. The file begins with a byte order mark."""
    folder = Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure")
    try:
        profile: Mapping[str, Any] = json.loads((folder / PROFILE).read_text(encoding="utf-8-sig"))
        listed = profile["subscriptions"]
        return next((str(each["id"]) for each in listed if each.get("isDefault")), "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""
