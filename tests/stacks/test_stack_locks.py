"""Locks of stacks: the shipped ones, those that are refused, and how one is written with pip itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cloudrun.assets import images_dir
from cloudrun.config import AS_FOUND, PINNED, Settings
from cloudrun.errors import JobError
from cloudrun.provision_steps import FRAMEWORKS, steps_of
from cloudrun.sim.packages_files import make_wheel
from cloudrun.stacks import list_stacks, load_stack, stack_hash
from cloudrun.stacks_lock import plain_name, platform_tags

HEAD = 'description = "d"\nsource = "s"\nos = "ubuntu-22.04"\n'
PYTHON = "{}.{}".format(*sys.version_info)
STACK = HEAD + f'python = "{PYTHON}"\nlock = "mine.lock"\n[frameworks]\nTheano_X = "0.9.0"\n[pip]\nsix = ""\n'
ONE, TWO = "1" * 64, "2" * 64
LOCK = f"""\
# all
theano-x==0.9.0 \\
    --hash=sha256:{ONE} \\
    --hash=sha256:{TWO}
six==1.10.0 --hash=sha256:{TWO}
"""
WITHOUT = {"cuda8-torch"}  # its wheel is on no index, and no source gives its hash


def put(folder: Path, lock: str = LOCK, stack: str = STACK) -> str:
    (folder / "mine.toml").write_text(stack)
    (folder / "mine.lock").write_text(lock)
    return str(folder / "mine.toml")


def parameters(stack: str, frameworks: str, folder: Path) -> dict[str, str]:
    steps = steps_of(load_stack(stack), replace(Settings(home=folder), frameworks=frameworks))
    return dict(next(step for step in steps if step.name == FRAMEWORKS).parameters)


def test_every_shipped_stack_pins_each_file_that_pip_installs() -> None:
    bare = {stack.name for stack in list_stacks() if stack.frameworks and not (stack.lock or stack.sha256)}
    assert bare == WITHOUT
    locked = {f"{stack.name}.lock" for stack in list_stacks() if stack.lock}
    assert locked == {path.name for path in images_dir().glob("*.lock")}
    cuda12 = next(stack for stack in list_stacks() if stack.name == "cuda12-torch")
    assert {name: version for name, version, _ in cuda12.lock}["nvidia-cudnn-cu12"] == cuda12.cudnn


def test_a_lock_is_what_pip_is_told_and_nothing_else(tmp_path: Path) -> None:
    stack = put(tmp_path)
    told = parameters(stack, PINNED, tmp_path)
    assert told["FRAMEWORKS"] == "Theano_X==0.9.0 six==1.10.0"
    assert told["HASHES"] == f"Theano_X={ONE},{TWO} six={TWO}"
    as_found = parameters(stack, AS_FOUND, tmp_path)
    assert (as_found["FRAMEWORKS"], as_found["HASHES"]) == ("Theano_X==0.9.0 six", "")


def test_another_lock_is_another_stack(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, other = put(tmp_path), put(tmp_path / "other", LOCK.replace("1.10.0", "1.10.1"))
    assert stack_hash(load_stack(first)) != stack_hash(load_stack(other))


@pytest.mark.parametrize(
    ("lock", "reason"),
    [
        (LOCK.replace("six==1.10.0", "six>=1.10.0"), r"mine\.lock, line 5: not NAME==VERSION"),
        ("theano-x==0.9.0\n", r"mine\.lock, line 1: not NAME==VERSION"),
        (LOCK + "theano_x==0.9.0 --hash=sha256:" + ONE, r"line 6: theano_x stands there twice"),
        (LOCK.replace("0.9.0", "1.0.0"), r"mine\.toml, line 7: frameworks\.Theano_X: mine\.lock has 1\.0\.0"),
        (LOCK.replace("six", "seven"), r"line 9: pip\.six: mine\.lock does not have it"),
        (LOCK + "--index-url=https://a.test\n", r"line 6: not NAME==VERSION"),
        ("#" * 200_000, "is the most"),
    ],
)
def test_a_lock_that_says_less_than_every_file_is_refused(tmp_path: Path, lock: str, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        load_stack(put(tmp_path, lock))


def test_a_lock_that_is_not_there_or_stands_beside_hashes_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path)
    (tmp_path / "mine.lock").unlink()
    with pytest.raises(JobError, match=r"mine\.lock: cannot be read"):
        load_stack(path)
    both = STACK.replace('six = ""', 'six = "1"') + f'[sha256]\nTheano_X = "{ONE}"\nsix = "{TWO}"\n'
    with pytest.raises(JobError, match="lock has every sha256"):
        load_stack(put(tmp_path, stack=both))
    with pytest.raises(JobError, match=r"mine\.toml, line 5"):
        load_stack(put(tmp_path, stack=STACK.replace("mine.lock", "../mine.lock")))


def test_pip_itself_writes_a_lock_that_loads(tmp_path: Path) -> None:
    """With all that the stack's packages need, as this computer's pip finds it in a folder of wheels."""
    for name in ("theano-x", "six"):
        file, content = make_wheel(name, "0.9.0")
        (tmp_path / file).write_bytes(content)
    path = put(tmp_path, "nothing yet")
    done = write_lock(path, sys.executable, tmp_path)
    assert done.returncode == 0, done.stderr
    names = [(plain_name(name), version) for name, version, _hexes in load_stack(path).lock]
    assert names == [("six", "0.9.0"), ("theano-x", "0.9.0")]
    other = write_lock(path, "/bin/false", tmp_path)
    assert (other.returncode, PYTHON in other.stderr) == (1, True)


def write_lock(stack: str, python: str, wheels: Path) -> subprocess.CompletedProcess[str]:
    only = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    argv = [sys.executable, "-m", "cloudrun.cli.stack_lock", stack, python]
    return subprocess.run(
        argv, env={**os.environ, **only}, capture_output=True, text=True, check=False, timeout=60
    )


def test_wheels_of_a_newer_system_are_not_locked() -> None:
    tags = platform_tags("ubuntu-22.04")
    assert "manylinux_2_35_x86_64" in tags
    assert "manylinux_2_36_x86_64" not in tags
    with pytest.raises(JobError, match="no version of glibc"):
        platform_tags("debian-12")
