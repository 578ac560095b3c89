"""Provisioning steps as they run on a machine: with sh, their parameters in the environment."""

from __future__ import annotations

import shutil
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from cloudrun.assets import provisioning_dir

STEP = provisioning_dir() / "steps" / "20-frameworks.sh"


def make_wheel(folder: Path, version: str) -> None:
    """A package `stackpart` without content, as pip installs it."""
    info = f"stackpart-{version}.dist-info"
    files = {
        "stackpart.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: stackpart\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"stackpart-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with nothing but pip, to be copied: making one takes seconds."""
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, with_pip=True)
    return folder


@pytest.fixture
def machine(tmp_path: Path, python: Path) -> dict[str, str]:
    """The environment of a machine with a python3 of its own and an index of two versions of one package."""
    shutil.copytree(python, tmp_path / "python", symlinks=True)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        make_wheel(wheels, version)
    return {
        "PATH": f"{tmp_path / 'python' / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "FRAMEWORKS": "stackpart==1.0",
    }


def step(verb: str, machine: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-s", verb],
        input=STEP.read_text(),
        env=machine,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_pin_is_installed_and_not_the_newest(machine: dict[str, str]) -> None:
    assert step("check", machine).returncode == 1
    done = step("apply", machine)
    assert done.returncode == 0, done.stderr
    assert step("check", machine).returncode == 0
    shown = subprocess.run(
        ["python3", "-c", "import stackpart; print(stackpart.__version__)"],
        env=machine, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout == "1.0\n"


def test_another_version_is_replaced_by_the_pin(machine: dict[str, str]) -> None:
    assert step("apply", {**machine, "FRAMEWORKS": "stackpart==2.0"}).returncode == 0
    assert step("check", machine).returncode == 1
    assert step("apply", machine).returncode == 0
    assert step("check", machine).returncode == 0


def test_what_cannot_be_had_says_so(machine: dict[str, str]) -> None:
    done = step("apply", {**machine, "FRAMEWORKS": "stackpart==9.9"})
    assert done.returncode != 0
    assert "stackpart==9.9" in done.stderr
    assert step("apply", {**machine, "FRAMEWORKS": ""}).returncode != 0
