"""provisioning/cloud-init.yaml, and the user data made of it, by cloud-init's own schema."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator

from cloudrun import payload
from cloudrun.assets import provisioning_dir
from cloudrun.keys import Keys, make_keys

TEMPLATE = provisioning_dir() / "cloud-init.yaml"
POLICY = {"issued_at": 1772366400.25, "deadline_at": None, "idle_s": 1800.0, "release": ["é", "$x ${agent}"]}


@pytest.fixture(scope="module")
def schema() -> Draft4Validator:
    script = Path(__file__).with_name("fetch_schema.sh")
    done = subprocess.run([script], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 3:
        pytest.skip(f"cloud-init's schema: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return Draft4Validator(json.loads(Path(done.stdout.strip()).read_text()))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys", comment="cloudrun box")


def user_data(keys: Keys, companion: str = "") -> dict[str, Any]:
    packed = payload.user_data(
        keys, user="ubuntu", policy=POLICY, companion=companion, most_bytes=payload.MAX_AZURE_BYTES
    )
    text = gzip.decompress(packed).decode("ascii")
    assert text.startswith("#cloud-config\n")
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def template() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text())
    return config


@pytest.mark.parametrize("companion", ["", "azure"])
def test_template_and_user_data_are_valid(schema: Draft4Validator, keys: Keys, companion: str) -> None:
    assert TEMPLATE.read_text().startswith("#cloud-config\n")
    for config in (template(), user_data(keys, companion)):
        assert [error.message for error in schema.iter_errors(config)] == []


def test_the_schema_does_refuse(schema: Draft4Validator, keys: Keys) -> None:
    config = user_data(keys)
    config["write_files"][0]["permissions"] = 0o755
    assert list(schema.iter_errors(config))


def test_user_data_is_the_template_filled_in(keys: Keys) -> None:
    names = {
        "agent_path": f"{payload.FOLDER}/{payload.agent_name()}.py",
        "companion_path": payload.companion_path("azure"),
        "host_public": keys.host_public,
        "login_public": keys.login_public,
        "policy": json.dumps(POLICY, sort_keys=True),
    }
    filled = user_data(keys, "azure")
    assert _shape(filled) == _shape(template())
    for wanted, got in zip(_strings(template()), _strings(filled), strict=True):
        if not wanted.startswith("${"):
            assert got == wanted
        elif wanted[2:-1] in names:
            assert got == names[wanted[2:-1]]
        else:
            assert len(got) > 50


def test_without_a_companion_its_file_alone_is_missing(keys: Keys) -> None:
    filled, whole = user_data(keys), user_data(keys, "azure")
    del whole["write_files"][1]
    assert filled == whole


def _shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    return [_shape(each) for each in value] if isinstance(value, list) else type(value)


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    return [str(value)]
