"""What a rented machine is given to boot with: its keys, its guard, and who may log in.

provisioning/cloud-init.yaml, filled in: the agent with its policy, started at every boot by
provisioning/boot.sh, the host key that we will check, and the public key that opens the machine. It needs no
network. The same input gives the same bytes, so that a repeated launch is the same request.

Any process on the machine can read all of it at the cloud's metadata service. So the host key in it is
replaced over the first connection (remote/hostkey.py), and it holds no other secret.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shlex
import tokenize
from collections.abc import Mapping
from functools import cache

from cloudrun.assets import PACKAGE, provisioning_dir
from cloudrun.errors import Refused
from cloudrun.keys import Keys

# EC2's limit "in raw form, before it is base64-encoded" (EC2 user guide, instance user data, read 2026-03).
MAX_BYTES = 16_384
# Azure's: "the maximum length of the binary array is 65535 bytes" (REST reference, osProfile.customData).
MAX_AZURE_BYTES = 65_535
FOLDER = "/var/lib/cloudrun"
NAMES = re.compile(r"\$\{(\w+)\}")  # of the template
# Ubuntu 16.04 to 24.04, Debian and Amazon Linux 2023 have the first; Amazon Linux 2 one of the others, or
# one of its extras; deep learning images have conda's.
INTERPRETERS = (
    "/usr/bin/python3 python3 /usr/libexec/platform-python /usr/bin/python3.[0-9]* /opt/conda/bin/python3"
)


def user_data(
    keys: Keys,
    *,
    user: str,
    policy: Mapping[str, object],
    home: str = "",
    companion: str = "",
    most_bytes: int = MAX_BYTES,
) -> bytes:
    """The gzip'ed cloud-config for a machine whose login is `user`, with home folder `home` (/home/USER).

    `policy` is guard.policy()'s; `companion` names the part of the agent that only one cloud's machines need
    (companion_path says where it will lie). Raises Refused where it does not fit into most_bytes, or where
    the private host key is gone, because the machine of these keys is up already.
    """
    if not keys.host_private:
        raise Refused(
            "these keys belong to a machine that was launched before",
            hint="terminate it, or launch under another name",
        )
    text = _filled(
        agent_path=f"{FOLDER}/{agent_name()}.py",
        agent=_stripped("agent.py"),
        companion_path=companion_path(companion) if companion else "",
        companion=_stripped(f"{companion}.py") if companion else "",
        policy=json.dumps(policy, sort_keys=True),
        boot_env=_boot_env(user, home or f"/home/{user}", policy),
        boot=_bare(_shipped("boot.sh")),
        host_private=keys.host_private,
        host_public=keys.host_public,
        login_public=keys.login_public,
    )
    packed = gzip.compress(text.encode(), 9, mtime=0)
    if len(packed) > most_bytes:
        raise Refused(
            f"the boot payload has {len(packed)} bytes, and {most_bytes} is all that a machine takes",
            hint="shorten the release command",
        )
    return packed


def agent_name() -> str:
    """The name by which the client looks for the agent on a machine: found there, it need not be pushed."""
    return "agent-" + hashlib.sha256(_source("agent.py").encode()).hexdigest()[:16]


def companion_path(name: str) -> str:
    """Where a companion of the agent lies on a machine that was given one."""
    return f"{FOLDER}/{name}.py"


def stripped(source: str) -> str:
    """Python source without comments, docstrings, empty lines and optional blanks; one blank a level.

    The syntax stays as it was: for an old Python, code of a new one's unparser would not do.
    """
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER)
    ]
    lines: list[str] = []
    line, depth = "", 0
    for index, token in enumerate(tokens):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            depth += 1 if token.type == tokenize.INDENT else -1
        elif token.type == tokenize.NEWLINE:
            lines += [line] if line else []
            line = ""
        elif not line and _is_statement(tokens, index):
            alone = index + 2 < len(tokens) and tokens[index + 2].type == tokenize.DEDENT
            line = " " * depth + "0" if alone else ""  # a docstring may be all that a class or function has
        elif not line:
            line = " " * depth + token.string
        else:
            line += " " * (token.type in _WORDS and tokens[index - 1].type in _WORDS) + token.string
    return "\n".join(lines) + "\n"


_WORDS = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING)


def _is_statement(tokens: list[tokenize.TokenInfo], index: int) -> bool:
    """Whether a string is a statement of its own: a docstring, or as good as a comment."""
    return tokens[index].type == tokenize.STRING and tokens[index + 1].type == tokenize.NEWLINE


def _filled(**values: str) -> str:
    """The template with each name's value as a JSON string, which is YAML too."""
    strings = {name: json.dumps(value) if value else "" for name, value in values.items()}
    paragraphs = _shipped("cloud-init.yaml").split("\n\n")
    wanted = [each for each in paragraphs if all(strings[name] for name in NAMES.findall(each))]
    return "#cloud-config\n" + NAMES.sub(lambda found: strings[found[1]], _bare("\n".join(wanted)))


def _boot_env(user: str, home: str, policy: Mapping[str, object]) -> str:
    named = {
        "AGENT": f"{agent_name()}.py",
        "LOGIN": user,
        "LOGIN_HOME": home,
        "INTERPRETERS": INTERPRETERS,
        "LIMIT_S": str(_blind_limit_s(policy)),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in named.items())


def _blind_limit_s(policy: Mapping[str, object]) -> int:
    """How long a machine may stay up on which no guard can run; 0 = for ever, as the policy says."""
    limits = []
    if not policy.get("keep"):
        issued, deadline, idle = (_number(policy.get(key)) for key in ("issued_at", "deadline_at", "idle_s"))
        limits = [int(deadline - issued)] if deadline else []
        limits += [int(idle)] if idle else []
    return max(1, min(limits)) if limits else 0


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _bare(text: str) -> str:
    """A shell script or YAML without comments and empty lines."""
    return re.sub(r"(?m)^\s*(#(?!!).*)?\n", "", text)


@cache
def _shipped(file: str) -> str:
    return (provisioning_dir() / file).read_text(encoding="ascii")


@cache
def _source(file: str) -> str:
    return (PACKAGE / "agent" / file).read_text(encoding="ascii")


@cache
def _stripped(file: str) -> str:
    return "#!/usr/bin/env python3\n" + stripped(_source(file))
