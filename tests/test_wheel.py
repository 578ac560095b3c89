"""What a user gets from the wheel: everything inside, and a first run from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without an index."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (built,) = folder.glob("cloudrun-*.whl")
    return built


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The bin folder of a fresh environment with the wheel in it.

    Its dependencies are lent by the environment of the tests, as one more folder of packages: that
    folder's own .pth files do not count, so the checkout itself is out of reach.
    """
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True, with_pip=False)
    python = environment / "bin" / "python"
    call(
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        str(wheel),
    )
    (packages,) = (environment / "lib").glob("python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def test_wheel_holds_code_and_assets(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = call(
        "git", "-C", str(ROOT), "ls-files", "cloudrun", "jobs", "provisioning", "images"
    ).splitlines()
    assets = ("jobs/", "provisioning/", "images/")
    wanted = {f"cloudrun/_assets/{name}" if name.startswith(assets) else name for name in tracked}
    assert wanted - names == set()
    assert {name.split("/")[0] for name in names} == {"cloudrun", f"cloudrun-{version()}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or "/outputs/" in name]


@pytest.fixture
def home(installed: Path, tmp_path: Path) -> Iterator[Path]:
    """A home folder whose machines end with the test, however that ends."""
    folder = tmp_path / "h"
    yield folder
    listed = call(str(installed / "cloudrun"), "machines", "list", "--json", home=folder)
    for machine in json.loads(listed):
        call(str(installed / "cloudrun"), "terminate", machine["name"], "--yes", home=folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_first_run_from_an_empty_folder(installed: Path, home: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    where = call(str(installed / "python"), "-c", "import cloudrun; print(cloudrun.__file__)", cwd=empty)
    assert Path(where.strip()).is_relative_to(installed.parent)
    said = call(
        *(str(installed / "cloudrun"), "submit", "svhn_rcnn", "--preset", "smoke", "--on", "local", "--json"),
        cwd=empty,
        home=home,
    )
    run = json.loads(said)
    assert (run["state"], run["exit_code"]) == ("succeeded", 0)
    lines = (home / "runs" / run["id"] / "outputs" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])[run["metric"]["name"]] == run["metric"]["value"]
    machines = json.loads(
        call(str(installed / "cloudrun"), "machines", "list", "--json", cwd=empty, home=home)
    )
    assert machines == []
    assert list(empty.iterdir()) == []


def version() -> str:
    import cloudrun

    return cloudrun.__version__


def call(*command: str, cwd: Path | None = None, home: Path | None = None) -> str:
    """Run a command, fail with what it said, return its standard output."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if home is not None:
        environ["CLOUDRUN_HOME"] = str(home)
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
