"""The boot payload: it fits, it is the same each time, and the agent in it is the agent."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudrun import payload
from cloudrun.errors import Refused
from cloudrun.keys import Keys, make_keys
from cloudrun.remote import agentlink

POLICY = {
    "issued_at": 1772366400.25,
    "deadline_at": 1772373600.25,
    "idle_s": 1800.0,
    "keep": False,
    "release": ["sudo", "shutdown", "-h", "now"],
    "notices": "aws",
}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys" / "box", comment="cloudrun box")


@pytest.fixture
def config(keys: Keys) -> dict[str, Any]:
    return opened(payload.user_data(keys, user="ubuntu", policy=POLICY))


def opened(packed: bytes) -> dict[str, Any]:
    """As cloud-init reads it."""
    text = gzip.decompress(packed).decode("ascii")
    assert text.startswith("#cloud-config\n")
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def files_of(config: dict[str, Any]) -> dict[str, str]:
    return {file["path"]: file["content"] for file in config["write_files"]}


def test_it_fits_into_what_ec2_takes_with_room_to_spare(keys: Keys) -> None:
    assert len(payload.user_data(keys, user="ubuntu", policy=POLICY)) < payload.MAX_BYTES - 512


def test_the_same_launch_has_the_same_bytes(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also later, as after a crash, and with a policy that was read back in another order."""
    again = dict(reversed(POLICY.items()))
    first = payload.user_data(keys, user="ubuntu", policy=POLICY)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert payload.user_data(keys, user="ubuntu", policy=again) == first


def test_what_does_not_fit_is_refused(keys: Keys) -> None:
    noise = "".join(hashlib.sha256(b"%d" % i).hexdigest() for i in range(200))
    with pytest.raises(Refused, match="16384"):
        payload.user_data(keys, user="ubuntu", policy={**POLICY, "release": [noise]})


def test_keys_whose_host_has_a_key_of_its_own_are_refused(keys: Keys) -> None:
    keys.login_path.with_name("host_key").unlink()
    used = make_keys(keys.login_path.parent, comment="cloudrun box")
    with pytest.raises(Refused, match="launched before"):
        payload.user_data(used, user="ubuntu", policy=POLICY)


def test_it_carries_the_host_key_whole_and_the_login_by_its_public_half(
    config: dict[str, Any], keys: Keys
) -> None:
    assert config["ssh_keys"] == {
        "ed25519_private": keys.login_path.with_name("host_key").read_text(),
        "ed25519_public": keys.host_public,
    }
    assert config["ssh_authorized_keys"] == [keys.login_public]
    secret = keys.login_path.read_text().split("\n")[2]
    assert secret not in json.dumps(config)


def test_the_policy_travels_as_it_is(config: dict[str, Any]) -> None:
    assert json.loads(files_of(config)[f"{payload.FOLDER}/policy.json"]) == POLICY


# --- the agent in it ---------------------------------------------------------------------


def test_the_agent_is_the_agent_without_its_comments(config: dict[str, Any]) -> None:
    shipped = files_of(config)[f"{payload.FOLDER}/{payload.agent_name()}.py"]
    original = agentlink.agent_source().decode()
    assert meaning(shipped) == meaning(original)
    assert len(shipped) < 0.8 * len(original)


def test_the_agent_is_found_there_by_the_client() -> None:
    assert payload.agent_name() == agentlink.agent_name()


def test_the_agent_keeps_its_old_syntax(config: dict[str, Any]) -> None:
    shipped = files_of(config)[f"{payload.FOLDER}/{payload.agent_name()}.py"]
    ast.parse(shipped, feature_version=(3, 5))


HARD = '''"""Module."""
class Only:
    """Nothing but this."""  # and this
def function(a, *, b=-1):
    """Doc."""
    # a comment
    text = """kept
      as it is  # no comment
    """  # one
    if a:

        return ("one"
                "two", a[1 : -b], not a, lambda x: x is None)
    "a string that is no docstring, and does nothing"
    return {
        "#": 1,  # two
    }
'''


def test_stripping_changes_no_meaning() -> None:
    shipped = payload.stripped(HARD)
    assert meaning(shipped) == meaning(HARD)
    assert "# no comment" in shipped
    assert not {"# a comment", "# one", "# two", "# and this", "Doc."} & set(shipped.splitlines())
    assert "# two" not in shipped


def meaning(source: str) -> str:
    """The syntax tree without constants that are statements: docstrings and what stands in for them."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, name, None), list):
                setattr(node, name, [one for one in statements if not is_constant(one)])
    return ast.dump(tree)


def is_constant(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


# --- the boot script ---------------------------------------------------------------------


def test_the_boot_script_is_good_shell() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    script = Path(__file__).parents[1] / "provisioning" / "boot.sh"
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
