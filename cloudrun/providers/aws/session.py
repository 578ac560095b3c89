"""The account as boto3 finds it: home region, clients, and the regions that it may use.

Credentials, profile and endpoint are boto3's own business (AWS_* variables, ~/.aws); nothing of
them is kept here. Constructing a Session does no I/O.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from cloudrun.config import Settings
from cloudrun.errors import ConfigError, Credentials
from cloudrun.providers.aws.errors import mapped

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0  # RunInstances of fifty machines may take tens of seconds
READ_ATTEMPTS = 5  # of botocore's standard mode, for throttling (RequestLimitExceeded) and broken lines
THROTTLED_ATTEMPTS = 6  # of any call that AWS did not look at
LONGEST_WAIT_S = 8.0
POOL = 20  # connections a client keeps: regions are asked in parallel, each through its own client

# Refusals before AWS looked at the call (EC2 API reference, request throttling).
THROTTLED = ("RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException")
# What was made a moment ago may not be known everywhere yet (EC2 API reference, eventual consistency).
NOT_YET_THERE = {
    "AuthorizeSecurityGroupIngress": "InvalidGroup.NotFound",
    "AssociateAddress": "InvalidAllocationID.NotFound",
    "CreateTags": "InvalidInstanceID.NotFound",
}


class Session:
    """One account. Safe for many threads: boto3's clients are, their making is locked here."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._boto: Any = None
        self._clients: dict[tuple[str, str, bool], Any] = {}
        self._regions: list[str] = []
        self.recent_prices: dict[tuple[str, str, str], Any] = {}  # by region, zone, type; see prices.py

    @property
    def simulated(self) -> bool:
        """Whether the endpoint is a rehearsal cloud."""
        return self.settings.sim is not None

    @property
    def home_region(self) -> str:
        """The region that the account's settings name: AWS_DEFAULT_REGION, AWS_REGION, or the profile's.

        Raises Credentials where there are none at all, ConfigError where only the region is missing.
        """
        region = self._session().region_name or os.environ.get("AWS_REGION", "")
        if region:
            return str(region)
        self.require_credentials()
        raise ConfigError(
            "no AWS region is set", hint="export AWS_DEFAULT_REGION=us-east-1, or run: aws configure"
        )

    def client(self, service: str, region: str, *, retry: bool = True) -> Any:
        """A client of that service there, made once. With retry=False only what AWS did not even look at
        is sent again: for calls that start something, where botocore would hide a lack of capacity, which is
        an HTTP 500."""
        with self._lock:
            key = (service, region, retry)
            if key not in self._clients:
                attempts = READ_ATTEMPTS if retry else 1
                config = Config(
                    connect_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=READ_TIMEOUT_S,
                    max_pool_connections=POOL,
                    retries={"mode": "standard", "total_max_attempts": attempts},
                )
                client = self._session().client(service, region_name=region, config=config)
                client.meta.events.register(
                    f"needs-retry.{client.meta.service_model.service_id.hyphenize()}", _again_after
                )
                self._clients[key] = client
            return self._clients[key]

    def regions(self) -> list[str]:
        """Regions that are enabled for the account, the home region first (one call, then kept).
        Raises botocore's errors as they are: the caller maps them."""
        home = self.home_region
        with self._lock:
            if not self._regions:
                answer = self.client("ec2", home).describe_regions()
                names = {region["RegionName"] for region in answer["Regions"]}
                self._regions = [home, *sorted(names - {home})]
            return list(self._regions)

    def require_credentials(self) -> None:
        """Raise Credentials when boto3 finds none anywhere."""
        try:
            found = self._session().get_credentials()
        except BotoCoreError as error:  # a profile that names another that is not there, and the like
            raise Credentials(f"AWS credentials: {error}", hint="check ~/.aws/config") from error
        if found is None:
            raise Credentials(
                "there are no AWS credentials",
                hint="run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )

    def fingerprint(self) -> str:
        """A short name of credentials and endpoint, for what is kept of answers: zones and quotas of one
        account are not another's. Raises Credentials where they cannot be had."""
        with mapped(region="", what="credentials"):
            found = self._session().get_credentials()
        who = (found.access_key if found else "", os.environ.get("AWS_ENDPOINT_URL", ""))
        return hashlib.sha256("\n".join(who).encode()).hexdigest()[:12]

    def _session(self) -> Any:
        with self._lock:
            if self._boto is None:
                try:
                    self._boto = boto3.Session()
                except BotoCoreError as error:  # AWS_PROFILE names one that does not exist
                    raise Credentials(f"AWS: {error}", hint="check AWS_PROFILE and ~/.aws/config") from error
            return self._boto


def _again_after(
    response: tuple[Any, Mapping[str, Any]] | None, attempts: int, operation: Any, **_: object
) -> float | None:
    """Seconds until the call is sent again, None for never: botocore's hook, asked after each answer."""
    code = response[1].get("Error", {}).get("Code", "") if response else ""
    again = code in THROTTLED or code == NOT_YET_THERE.get(operation.name)
    if not again or attempts >= THROTTLED_ATTEMPTS:
        return None
    longest_s: float = min(LONGEST_WAIT_S, 0.5 * 2**attempts)
    return random.uniform(0.5, 1.0) * longest_s  # noqa: S311  # a pause, no secret
