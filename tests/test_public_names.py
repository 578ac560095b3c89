"""What `import cloudrun` offers: a flat list of names, documented, and nothing of it loaded before use."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import cloudrun

ROOT = Path(__file__).resolve().parents[1]

# Adding a name is a promise, removing one breaks somebody's script: both are done here too.
NAMES = [
    *("Client", "CloudrunError", "Job", "Machine", "MachineState", "Market"),
    *("Offer", "Plan", "Run", "RunState", "Settings", "load_settings"),
]


def test_public_names_are_these() -> None:
    assert sorted(cloudrun.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_public_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(cloudrun, name))


def test_public_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = cloudrun.nonsense


def test_public_methods_of_client_are_documented() -> None:
    methods = [value for name, value in vars(cloudrun.Client).items() if not name.startswith("_")]
    assert [method.__qualname__ for method in methods if callable(method) and not method.__doc__] == []


def test_one_machine_and_several_are_asked_for_in_the_same_terms() -> None:
    one, many = (inspect.signature(verb) for verb in (cloudrun.Client.launch, cloudrun.Client.launch_many))
    assert [*one.parameters] == [name for name in many.parameters if name != "count"]


def test_public_names_are_loaded_on_use() -> None:
    code = "import sys, cloudrun; print(*sorted(name for name in sys.modules if name.startswith('cloudrun')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cloudrun"]
