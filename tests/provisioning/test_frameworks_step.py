"""20-frameworks.sh: hashes that pip insists on, and wheels that no index has."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from machine_help import Client
from provisioning_help import WHEEL, make_ready

from cloudrun.config import PINNED
from cloudrun.errors import StepFailed
from cloudrun.models import Stack
from cloudrun.sim.packages import PackageServer
from cloudrun.sim.packages_files import make_wheel
from cloudrun.stacks import stack_hash

ALONE = Stack(name="small", steps=("20-frameworks",), frameworks=(("theano", "0.9.0"),))
THEANO, OTHER = (hashlib.sha256(make_wheel("theano", each)[1]).hexdigest() for each in ("0.9.0", "1.0.0"))
INSTALLED = "python3 -c 'import theano; print(theano.__version__)'"


def test_a_file_with_another_hash_is_refused(k80: Client, packages: PackageServer) -> None:
    wrong = replace(ALONE, sha256=(("theano", OTHER),))
    with pytest.raises(StepFailed, match="20-frameworks failed") as failed:
        make_ready(k80, packages, wrong, frameworks=PINNED)
    assert "hash" in str(failed.value).casefold()
    assert THEANO in str(failed.value)  # what came instead
    assert not k80.shell().run(INSTALLED, check=False)

    make_ready(k80, packages, replace(ALONE, sha256=(("theano", f"{OTHER},{THEANO}"),)), frameworks=PINNED)
    assert k80.run(INSTALLED).strip() == "0.9.0"


def test_what_has_no_hash_is_not_taken_beside_one_that_has(k80: Client, packages: PackageServer) -> None:
    stack = replace(
        ALONE, pip=(("lasagne", "0.1"),), wheels=(("lasagne", WHEEL),), sha256=(("theano", THEANO),)
    )
    with pytest.raises(StepFailed, match="20-frameworks failed"):
        make_ready(k80, packages, stack, frameworks=PINNED)
    assert not k80.shell().run(INSTALLED, check=False)


def test_a_lock_is_installed_to_the_letter_or_not_at_all(k80: Client, packages: PackageServer) -> None:
    """Lasagne, which no table of the stack names, as what Theano stands on."""
    lasagne = hashlib.sha256(make_wheel("lasagne", "0.1")[1]).hexdigest()
    locked = replace(
        ALONE, wheels=(("lasagne", WHEEL),), lock=(("lasagne", "0.1", lasagne), ("theano", "0.9.0", OTHER))
    )
    with pytest.raises(StepFailed, match="20-frameworks failed"):
        make_ready(k80, packages, locked, frameworks=PINNED)
    assert not k80.shell().run("python3 -c 'import lasagne'", check=False)

    right = replace(locked, lock=(locked.lock[0], ("theano", "0.9.0", f"{OTHER},{THEANO}")))
    make_ready(k80, packages, right, frameworks=PINNED)
    assert k80.run(INSTALLED).strip() == "0.9.0"
    assert k80.run("python3 -c 'import lasagne; print(lasagne.__version__)'") == "0.1"


def test_a_wheel_that_no_index_has_comes_from_its_server(k80: Client, packages: PackageServer) -> None:
    content = make_wheel("lasagne", "0.1")[1]
    wheel = hashlib.sha256(content).hexdigest()
    stack = replace(
        ALONE,
        frameworks=(("lasagne", "0.1"), *ALONE.frameworks),
        wheels=(("lasagne", WHEEL),),
        sha256=(("theano", THEANO), ("lasagne", wheel)),
    )
    with pytest.raises(StepFailed, match="20-frameworks failed"):
        make_ready(k80, packages, replace(stack, wheels=()), frameworks=PINNED)
    versions, _ = make_ready(k80, packages, stack, frameworks=PINNED)
    assert (versions["lasagne"], versions["theano"]) == ("0.1", "0.9.0")
    assert make_ready(k80, packages, stack, frameworks=PINNED)[1] == []


def test_a_rehearsal_takes_stubs_whatever_their_hash(k80: Client, packages: PackageServer) -> None:
    versions, _ = make_ready(k80, packages, replace(ALONE, sha256=(("theano", OTHER),)))
    assert versions["theano"] == "0.9.0"


def test_hashes_and_wheels_count_in_a_stacks_hash() -> None:
    others = (replace(ALONE, sha256=(("theano", THEANO),)), replace(ALONE, wheels=(("theano", WHEEL),)))
    assert len({stack_hash(each) for each in (ALONE, *others)}) == 3
