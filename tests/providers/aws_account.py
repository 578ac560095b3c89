"""An AWS account for a test: the double on loopback, and a session that finds it as it finds the real one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudrun.config import Settings
from cloudrun.providers.aws.session import Session
from cloudrun.sim.aws import AwsDouble

HOME_REGION = "us-east-1"
AWS_VARIABLES = ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_EC2")


@dataclass(frozen=True, slots=True)
class Account:
    """The double, and sessions of one home folder."""

    double: AwsDouble
    home: Path

    def session(self, *, sim: bool = False) -> Session:
        """A session as a new process has it."""
        return Session(Settings(home=self.home, sim=self.home / "sim" if sim else None))

    def calls(self) -> Counter[str]:
        """How often each action was called since the last time this was asked."""
        counted = Counter(call.action for call in self.double.calls())
        self.double.forget_calls()
        return counted


def account_of(double: AwsDouble, home: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    """The double's account for one test: calls and faults of the tests before are forgotten. Prices,
    quotas and capacity that they set stay: a test that sets some does so for a place of its own."""
    double.clear_faults()
    double.forget_calls()
    use_keys(monkeypatch, home, AWS_ENDPOINT_URL=double.url)
    return Account(double, home)


def use_keys(monkeypatch: pytest.MonkeyPatch, home: Path, **more: str) -> None:
    """Dummy keys and nothing of this computer's own AWS configuration."""
    _forget(monkeypatch, home)
    keys = {"AWS_ACCESS_KEY_ID": "AKIAREHEARSAL", "AWS_SECRET_ACCESS_KEY": "rehearsal"}
    for name, value in {**keys, "AWS_DEFAULT_REGION": HOME_REGION, **more}.items():
        monkeypatch.setenv(name, value)


def use_nothing(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A computer on which AWS was never configured."""
    _forget(monkeypatch, home)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


def _forget(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in AWS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "no-credentials"))
