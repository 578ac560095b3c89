"""A machine made ready with real apt, dpkg and pip from signed repositories that also hold newer versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machine_help import Client, Rehearsal
from provisioning_help import NEWER, PINS, STACK, log_of, make_ready

from cloudrun.errors import StepFailed
from cloudrun.sim.packages import PackageServer

INSTALLED = "dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' cuda-8-0 libcudnn5 nvidia-384"
PINNED = [f"{name} {version} installed" for name, version in PINS]


def test_pins_are_installed_and_stay(k80: Client, packages: PackageServer) -> None:
    versions, told = make_ready(k80, packages)
    assert any("14-packages applied" in line for line in told)
    assert k80.run(INSTALLED).splitlines() == PINNED  # and unpinned would take the newer ones:
    table = k80.run("apt-cache madison cuda-8-0")
    assert dict(NEWER)["cuda-8-0"] in table
    assert k80.run("apt-mark showhold").split() == [name for name, _ in PINS]
    assert (versions["theano"], versions["driver"]) == ("0.9.0", "384.183")
    assert (versions["gpu"], versions["apt:cuda-8-0"]) == ("Tesla K80", "8.0.61-1")
    assert "OMP_NUM_THREADS=2" in k80.run("cat /etc/environment")
    assert k80.run("cat ~/.theanorc").splitlines() == [
        "[global]", "device = gpu", "", "[lib]", "cnmem = 0.8",
    ]  # fmt: skip

    k80.run("sudo apt-get -y upgrade && sudo apt-get -y dist-upgrade")
    assert k80.run(INSTALLED).splitlines() == PINNED

    again, told = make_ready(k80, packages)
    assert told == []
    assert "9 of 9 steps hold" in log_of(k80)
    changing = ("disk_free_bytes",)
    assert {**again, **dict.fromkeys(changing)} == {**versions, **dict.fromkeys(changing)}


def test_a_newer_version_that_slipped_in_is_taken_back(k80: Client, packages: PackageServer) -> None:
    stack = replace(STACK, steps=("12-nvidia-repository", "14-packages"), frameworks=())
    make_ready(k80, packages, replace(stack, packages=NEWER))
    assert k80.run(INSTALLED).splitlines() != PINNED
    make_ready(k80, packages, stack)
    assert k80.run(INSTALLED).splitlines() == PINNED


def test_a_package_that_was_half_installed_is_completed(k80: Client, packages: PackageServer) -> None:
    """Killed inside dpkg, between unpacking and configuring."""
    packages.add_deb("cuda-8-0", "8.0.61-1", postinst="#!/bin/sh\n[ -e /srv/go ] || kill -9 $PPID\n")
    stack = replace(STACK, steps=("12-nvidia-repository", "14-packages"), frameworks=())
    with pytest.raises(StepFailed, match="14-packages failed on k80"):
        make_ready(k80, packages, stack)
    k80.run("sudo touch /srv/go")
    make_ready(k80, packages, stack)
    assert k80.run(INSTALLED).splitlines() == PINNED


def test_a_rotated_key_is_taken_over_and_the_old_one_trusted_no_more(
    k80: Client, packages: PackageServer
) -> None:
    stack = replace(STACK, steps=("12-nvidia-repository",), frameworks=(), packages=())
    make_ready(k80, packages, stack)
    k80.run("sudo apt-get update -o APT::Update::Error-Mode=any")
    k80.run("sudo rm /etc/apt/sources.list")  # the image's own repository, which is trusted
    packages.rotate_key()
    assert not k80.shell().run("sudo apt-get update -o APT::Update::Error-Mode=any", check=False)
    make_ready(k80, packages, stack)
    k80.run("sudo apt-get update -o APT::Update::Error-Mode=any")
    packages.fingerprint = "0" * 40  # what the client expects is not the key that is there
    with pytest.raises(StepFailed, match="12-nvidia-repository"):
        make_ready(k80, packages, stack)


def test_a_reboot_that_a_step_asks_for_is_done_and_awaited(k80: Client, packages: PackageServer) -> None:
    packages.add_deb("needy", "1.0", postinst="#!/bin/sh\ntouch /run/reboot-required\n")
    before = k80.run("cat /proc/sys/kernel/random/boot_id")
    steps = ("12-nvidia-repository", "14-packages", "30-theanorc")
    versions, _ = make_ready(
        k80, packages, replace(STACK, steps=steps, frameworks=(), packages=(("needy", "1.0"),))
    )
    assert versions["apt:needy"] == "1.0"
    assert k80.run("cat /proc/sys/kernel/random/boot_id") != before
    assert "14-packages asks for a reboot" in log_of(k80)
    assert "device = gpu" in k80.run("cat ~/.theanorc")


def test_a_gpu_stack_without_a_gpu_fails_at_once(rehearsal: Rehearsal, packages: PackageServer) -> None:
    client = rehearsal.boot()
    stack = replace(STACK, steps=("12-nvidia-repository", "14-packages", "90-gpu-seen"), frameworks=())
    with pytest.raises(StepFailed, match="no GPU is seen") as failed:
        make_ready(client, packages, stack)
    assert failed.value.exit_code == 4
    assert "cloudrun ssh k80" in failed.value.hint


def test_a_machine_that_has_the_frameworks_is_taken_as_found(k80: Client, packages: PackageServer) -> None:
    stack = replace(STACK, frameworks=(("pytest", "0.1"),))  # this computer's own, at whatever version
    versions, told = make_ready(k80, packages, stack)
    assert (versions["pytest"], told) == (pytest.__version__, [])
    assert not k80.shell().run("dpkg-query -W cuda-8-0", check=False)


def test_driver_packages_of_the_system_itself_are_pinned(k80: Client, packages: PackageServer) -> None:
    make_ready(k80, packages, replace(STACK, repositories=(), steps=("14-packages",), frameworks=()))
    assert k80.run(INSTALLED).splitlines() == PINNED
