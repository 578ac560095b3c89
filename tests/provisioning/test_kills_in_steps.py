"""Every installing step, killed at any point, is completed by the next apply."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from exhaustive import exhaustive
from machine_help import Client
from provisioning_help import PINS, STACK, log_of, make_ready
from step_help import Step

from cloudrun.sim.packages import PackageServer

PACKAGES = " ".join(f"{name}={version}" for name, version in PINS)
INSTALLED = "dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' cuda-8-0 libcudnn5 nvidia-384"
PINNED = [f"{name} {version} installed" for name, version in PINS]


def repositories(packages: PackageServer) -> dict[str, str]:
    return {
        "REPOSITORIES": "nvidia-cuda nvidia-ml",
        "STACK_OS": "ubuntu-16.04",
        "NVIDIA_REPOSITORY_URL": packages.environment()["CLOUDRUN_NVIDIA_REPOSITORY_URL"],
    }


def test_hold_system(k80: Client) -> None:
    step = Step(k80, "05-hold-system", {})
    kills = 0
    for _ in step.killed_before_each_change("sudo rm -f /etc/apt/apt.conf.d/52cloudrun-hold"):
        kills += 1
        step.apply()
        assert 'Periodic::Unattended-Upgrade "0"' in k80.run("cat /etc/apt/apt.conf.d/52cloudrun-hold")
    assert kills >= 3  # folder, file, its rename


@pytest.mark.parametrize("every", [2, *exhaustive(1)])
def test_nvidia_repository(k80: Client, packages: PackageServer, every: int) -> None:
    step = Step(k80, "12-nvidia-repository", repositories(packages))
    undo = "sudo rm -f /usr/share/keyrings/cloudrun-* /etc/apt/sources.list.d/cloudrun-*"
    kills = 0
    for _ in step.killed_before_each_change(undo, every=every):
        kills += 1
        step.apply()
        k80.run("sudo apt-get update -o APT::Update::Error-Mode=any")
        assert "9.0.176-1" in k80.run("apt-cache madison cuda-8-0")
    assert kills * every >= 7  # folders; key, its rename and the list, of two


@pytest.mark.parametrize("every", [2, *exhaustive(1)])
def test_packages(k80: Client, packages: PackageServer, every: int) -> None:
    Step(k80, "12-nvidia-repository", repositories(packages)).apply()
    step = Step(k80, "14-packages", {"PACKAGES": PACKAGES})
    purge = "sudo dpkg --purge --force-remove-reinstreq cuda-8-0 libcudnn5 nvidia-384 2>/dev/null"
    undo = f"sudo rm -f /etc/apt/preferences.d/cloudrun; {purge} || true"
    kills = 0
    for _ in step.killed_before_each_change(undo, every=every):
        kills += 1
        assert not step.holds()
        step.apply()
        assert k80.run(INSTALLED).splitlines() == PINNED
    assert kills * every >= 6  # folder, file, its rename, dpkg, update, install, hold


def test_python(k80: Client, packages: PackageServer) -> None:
    """Where python3 finds no venv until its package is there."""
    for name in ("python3", "python3-pip"):
        packages.add_deb(name, "0.1")
    packages.add_deb("python3-venv", "99.0", postinst="#!/bin/sh\ntouch /srv/venv\n")
    step = Step(k80, "16-python", {"PYTHON": "{}.{}".format(*sys.version_info)})
    assert step.holds()
    real = k80.run("command -v python3")
    front = f'#!/bin/sh\ncase $* in *venv*) [ -e /srv/venv ] || exit 1 ;; esac\nexec {real} "$@"\n'
    k80.shell().run("cat >bin/python3; chmod +x bin/python3", input=front.encode())
    undo = "sudo rm -f /srv/venv; sudo dpkg --purge --force-all python3-venv"
    kills = 0
    for _ in step.killed_before_each_change(undo):
        kills += 1
        assert not step.holds()
        step.apply()
    assert kills == 2  # update, install


# Between description and list of files; before its code, before who installed it.
@pytest.mark.parametrize("numbers", [(6,), *exhaustive((2, 14))])
def test_frameworks(k80: Client, packages: PackageServer, numbers: tuple[int, ...]) -> None:
    index = packages.environment()["CLOUDRUN_PIP_INDEX_URL"]
    step = Step(k80, "20-frameworks", {"FRAMEWORKS": "theano==0.9.0", "PIP_INDEX": index})
    site = k80.run("python3 -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'")
    kills = 0
    for _ in step.killed_at_files(f"sudo rm -rf {site}/theano*", numbers):
        kills += 1
        step.apply()
        assert k80.run("python3 -c 'import theano; print(theano.__version__)'") == "0.9.0"
        k80.run(f"test -s {site}/theano-0.9.0.dist-info/RECORD")
    assert kills == len(numbers)


def test_theanorc(k80: Client) -> None:
    step = Step(k80, "30-theanorc", {"THEANORC": "global.device=gpu\nlib.cnmem=0.8"})
    kills = 0
    for _ in step.killed_at_files("printf '[global]\\nmode = FAST_RUN\\n' >.theanorc"):
        kills += 1
        assert k80.run("cat .theanorc") == "[global]\nmode = FAST_RUN"
        step.apply()
        assert k80.run("cat .theanorc") == "[global]\nmode = FAST_RUN\ndevice = gpu\n\n[lib]\ncnmem = 0.8"
    assert kills == 2  # the new file, its rename


def test_environment(k80: Client) -> None:
    step = Step(k80, "32-environment", {"ENVIRONMENT": "NCCL_DEBUG=WARN\nTF_FORCE_GPU_ALLOW_GROWTH=true"})
    kept = k80.run("cat /etc/environment")
    undo = "sudo sed -i '/cloudrun: begin/,/cloudrun: end/d' /etc/environment"
    kills = 0
    for _ in step.killed_before_each_change(undo):
        kills += 1
        assert k80.run("cat /etc/environment") == kept
        step.apply()
        assert k80.run("cat /etc/environment").startswith(kept)
        assert k80.run("grep -c NCCL_DEBUG=WARN /etc/environment") == "1"
    assert kills == 3  # file, its mode, its rename


def test_gpu_tuning(k80: Client) -> None:
    put = "sudo tee /usr/local/bin/nvidia-smi >/dev/null && sudo chmod 755 /usr/local/bin/nvidia-smi"
    k80.shell().run(put, input=b"#!/bin/sh\ncase $* in *index*) echo 0 ;; esac\n")
    step = Step(k80, "40-gpu-tuning", {"PERSISTENCE": "on"})
    hook = "/var/lib/cloud/scripts/per-boot/cloudrun_gpu_tuning.sh"
    kills = 0
    for _ in step.killed_before_each_change(f"sudo rm -f /run/cloudrun-gpu-tuning {hook}"):
        kills += 1
        assert not step.holds()
        step.apply()
        assert k80.run("ls /var/lib/cloud/scripts/per-boot") == "cloudrun_gpu_tuning.sh"
    assert kills == 5  # the GPU, the mark of this boot, the hook, its mode, its rename


def test_a_line_that_is_cut_under_a_step_is_taken_up_again(k80: Client, packages: PackageServer) -> None:
    """The SSH server of the session dies while dpkg is at work."""
    cut = """#!/bin/sh
[ ! -e /srv/cut ] || exit 0
touch /srv/cut
pid=$$
while [ "$(cat /proc/$pid/comm)" != sshd ]; do pid=$(sed -n 's/^PPid:\\t//p' /proc/$pid/status); done
kill -9 "$pid"
sleep 2
"""
    packages.add_deb("cuda-8-0", "8.0.61-1", postinst=cut)
    make_ready(k80, packages, replace(STACK, steps=("12-nvidia-repository", "14-packages"), frameworks=()))
    assert "the connection was lost" in log_of(k80)
    assert k80.run(INSTALLED).splitlines() == PINNED
