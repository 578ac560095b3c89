"""Dummy keys of AWS, and nothing of this computer's own configuration."""

from __future__ import annotations

from pathlib import Path

import pytest


def use_aws(monkeypatch: pytest.MonkeyPatch, home: Path, url: str) -> None:
    told = {
        "AWS_ACCESS_KEY_ID": "AKIAREHEARSAL",
        "AWS_SECRET_ACCESS_KEY": "rehearsal",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(home / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "no-credentials"),
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
