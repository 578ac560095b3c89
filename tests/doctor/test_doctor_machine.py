"""A machine that is really broken: what the doctor finds, what --fix reapplies, and that it is whole then."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import wrongclock
from doctor_help import counting, lose_driver, mended, replace_program, run, wrong

from cloudrun import doctor
from cloudrun.client import Client
from cloudrun.events import Event, Note
from cloudrun.health import Severity
from cloudrun.models import Machine
from cloudrun.sim.packages import newer


def test_a_machine_is_healthy_after_launch_and_after_an_upgrade(client: Client, k80: Machine) -> None:
    found = client.examine("k80")
    assert [finding for finding in found if not finding.ok] == []
    told = {finding.check for finding in found}
    assert told >= {"driver", "gpu", "versions", "holds", "upgrades", "steps", "clock", "disk", "guard"}
    run(client, "sudo apt-get update && sudo apt-get -y upgrade")
    assert wrong(client) == {}


def test_one_command_asks_everything(client: Client, k80: Machine) -> None:
    commands: list[str] = []
    found = doctor.examine(counting(client.context(), commands), k80, mend=False)
    assert len(found) >= 12
    assert commands == ["sh -s"]


def test_a_driver_that_does_not_answer_is_installed_again(client: Client, k80: Machine) -> None:
    lose_driver(client)
    found = wrong(client)
    assert list(found) == ["driver"]
    assert "the driver is not loaded, as after an update" in found["driver"].detail
    assert found["driver"].steps == ("14-packages",)
    assert "doctor k80 --fix (reapplies 14-packages)" in found["driver"].hint
    assert mended(client) == {"driver"}
    assert "384.66" in run(client, "nvidia-smi")
    run(client, "sudo rm /usr/bin/nvidia-smi")
    assert wrong(client)["driver"].detail == "nvidia-smi is missing, and with it the driver"
    assert mended(client) == {"driver"}


def test_the_whole_driver_is_taken_away_and_nothing_else(client: Client, k80: Machine) -> None:
    """The pinned package may be a name for others of its version, which do the work."""
    for name, version in (("nvidia-dkms-384", "384.66-0ubuntu1"), ("nvidia-container-toolkit", "1.0-1")):
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: me\nDescription: x\n"
        shell = client.shell("k80")
        shell.run(f"mkdir -p {name}/DEBIAN && cat >{name}/DEBIAN/control", input=control.encode())
        run(client, f"dpkg-deb --build {name} >/dev/null && sudo dpkg -i {name}.deb")
    lose_driver(client)
    assert mended(client) == {"driver"}
    there = "dpkg-query -W -f '${Package} ${db:Status-Status}\\n' 'nvidia-*' | sed -n 's/ installed//p'"
    assert sorted(run(client, there).split()) == ["nvidia-384", "nvidia-container-toolkit", "nvidia-modprobe"]
    run(client, "sudo dpkg --purge nvidia-container-toolkit nvidia-dkms-384")


def test_a_driver_that_an_update_replaced_is_taken_back(client: Client, k80: Machine) -> None:
    pin, other = "384.66-0ubuntu1", newer("384.66-0ubuntu1")
    run(client, f"sudo apt-get -y --allow-change-held-packages install nvidia-384={other}")
    assert f"nvidia-384 {other}, not {pin}" in wrong(client)["versions"].detail
    assert mended(client) >= {"versions"}
    assert run(client, "dpkg-query -W -f '${Version}' nvidia-384") == pin


def test_only_the_steps_that_do_not_hold_are_reapplied(client: Client, k80: Machine) -> None:
    run(client, "sudo apt-mark unhold cuda-8-0; sed -i 's/= gpu/= cpu/' ~/.theanorc")
    run(client, "echo 'mine = 1' >>~/.theanorc")
    found = wrong(client)
    assert {check: finding.steps for check, finding in found.items()} == {
        "holds": ("14-packages",),
        "30-theanorc": ("30-theanorc",),
    }
    assert found["holds"].severity is Severity.WARNING
    told: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Note):
            told.append(event.message)

    after = client.examine("k80", mend=True, on_event=note)
    assert {finding.check for finding in after if finding.mended} == {"holds", "30-theanorc"}
    assert [finding for finding in after if not finding.ok] == []
    assert told[0] == "k80: reapplies 14-packages, 30-theanorc, and looks again"
    assert [line.split()[1] for line in told[1:]] == ["14-packages", "30-theanorc"]
    assert "mine = 1" in run(client, "cat ~/.theanorc")
    assert "cuda-8-0" in run(client, "apt-mark showhold").split()


def test_a_framework_of_another_version_is_found(client: Client, k80: Machine) -> None:
    index = client.settings.pip_index_url
    host = urlsplit(index).hostname
    pip = f"sudo $(command -v python3) -m pip install --quiet --index-url {index} --trusted-host {host}"
    run(client, f"{pip} --no-deps theano=={newer('0.9.0')}")
    found = wrong(client)
    assert found["versions"].detail == f"theano {newer('0.9.0')}, not 0.9.0"
    assert found["versions"].steps == ("20-frameworks",)
    run(client, f"{pip} --no-deps theano==0.9.0")


def test_a_system_that_upgrades_itself_is_found(client: Client, k80: Machine) -> None:
    file = "/etc/apt/apt.conf.d/99mine"
    run(client, f"echo 'APT::Periodic::Unattended-Upgrade \"1\";' | sudo tee {file}")
    found = wrong(client)["upgrades"]
    assert found.hint == f"cloudrun ssh k80 -- sudo rm {file}"  # a later file has the last word
    run(client, f"sudo rm {file} /etc/apt/apt.conf.d/52cloudrun-hold")
    assert set(wrong(client)) == {"05-hold-system"}
    assert mended(client) == {"05-hold-system"}


def test_a_disk_that_is_nearly_full_says_by_what(client: Client, k80: Machine) -> None:
    run(client, "mkdir -p ~/work/big && fallocate -l 9200M ~/work/big/file")
    found = wrong(client)["disk"]
    assert found.severity is Severity.WRONG
    assert "/work/big" in found.detail
    assert "cloudrun machines resize-disk k80 20" in found.hint
    assert "cloudrun clean --on k80" in found.hint
    run(client, "rm -r ~/work")


@pytest.mark.parametrize(("off", "severity"), [("+20s", Severity.WARNING), ("-1h", Severity.WRONG)])
def test_a_clock_that_is_off(client: Client, k80: Machine, off: str, severity: Severity) -> None:
    variables = " ".join(f"{name}={value}" for name, value in wrongclock.environment(off).items())
    replace_program(client, "/usr/local/bin/date", f'exec env {variables} /usr/bin/date "$@"')
    found = wrong(client)["clock"]
    assert (found.severity, "fast" in found.detail) == (severity, off.startswith("+"))
    assert "timedatectl set-ntp" in found.hint
    run(client, "sudo rm /usr/local/bin/date")


def test_a_machine_is_healthy_after_it_was_off(client: Client, k80: Machine) -> None:
    """Persistence mode and clocks go with a reboot."""
    client.stop("k80")
    client.start("k80")
    assert wrong(client) == {}
