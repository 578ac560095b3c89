"""What is different about an embedded machine: it is a folder, and one user is everybody in it."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine_help import PORT, Client, Rehearsal, free_address, wait_for

from cloudrun.server import processes
from cloudrun.sim.machine import MachineHost


@pytest.fixture
def rehearsal(tmp_path: Path) -> Iterator[Rehearsal]:
    made = Rehearsal(tmp_path, "embedded")
    yield made
    made.host.close()


def test_paths_of_the_user_data_lie_in_its_home(rehearsal: Rehearsal) -> None:
    script = "#!/bin/sh\ncat /etc/rehearsal/settings /home/ubuntu/own >/home/ubuntu/both\n"
    client = rehearsal.boot(
        {
            "write_files": [
                {"path": "/etc/rehearsal/settings", "content": "settings at /etc/rehearsal/settings\n"},
                {"path": "/home/ubuntu/own", "content": "own\n", "owner": "ubuntu:ubuntu"},
                {"path": "/usr/local/bin/read-both", "content": script, "permissions": "0755"},
            ],
            "runcmd": ["/usr/local/bin/read-both"],
        }
    )
    assert client.run("cat both").splitlines() == ["settings at /etc/rehearsal/settings", "own"]
    assert not Path("/etc/rehearsal").exists()


def test_sudo_finds_what_the_payload_wrote(rehearsal: Rehearsal) -> None:
    made = {"path": "/var/lib/cloudrun/azure.py", "content": "print('found it')"}
    client = rehearsal.boot({"write_files": [made]})
    assert client.run("sudo python3 /var/lib/cloudrun/azure.py release") == "found it"


def test_a_script_as_user_data_runs_once(rehearsal: Rehearsal) -> None:
    client = rehearsal.boot(user_data=gzip.compress(b"#!/bin/sh\necho script >>/root/events\n"))
    client.machine.power_off()
    client.machine.boot()
    assert (client.folder / "home/.system/root/events").read_text() == "script\n"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("sudo -n -u ubuntu NAME=value -- sh -c 'echo $NAME'", "value"),
        ("sudo -nu ubuntu echo direct", "direct"),
        ("su - ubuntu -c 'echo by su'", "by su"),
        ("runuser -u ubuntu -- echo by runuser", "by runuser"),
        ("chown ubuntu:ubuntu / && echo done", "done"),
    ],
)
def test_whoever_is_asked_to_do_it(shared: Client, command: str, answer: str) -> None:
    assert shared.run(command) == answer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    made = Rehearsal(tmp_path_factory.mktemp("shared"), "embedded")
    yield made.boot()
    made.host.close()


def test_growing_its_disk_changes_nothing(shared: Client) -> None:
    before = shared.run("df --output=size . | tail -1")
    shared.machine.grow(1000)
    assert shared.run("df --output=size . | tail -1") == before


def test_a_destroyed_machine_leaves_no_process(rehearsal: Rehearsal) -> None:
    client = rehearsal.boot({"runcmd": ["sleep 1000"]})
    client.run("nohup setsid sleep 1000 >/dev/null 2>&1 &")
    assert len(processes.belonging_to(client.folder)) > 3
    client.machine.destroy()
    assert processes.belonging_to(client.folder) == []


HOST = """
import sys
from pathlib import Path
from cloudrun.sim.machine import MachineHost, MachineSpec
host = MachineHost(Path(sys.argv[1]), ssh_port=int(sys.argv[2]), kind="embedded")
spec = MachineSpec("i-0", sys.argv[3], "ip-0", "ubuntu", b"", 3, lambda *_: (404, b""))
host.create(spec, on_off=print).boot()
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_host_left_running_is_ended_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "machines"
    killed = subprocess.Popen(
        [sys.executable, "-c", HOST, str(folder), str(PORT), free_address()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout
    with killed:
        assert killed.stdout.readline() == "ready\n"
        killed.kill()
    assert processes.belonging_to(folder / "i-0")
    MachineHost(folder, ssh_port=PORT, kind="embedded").close()
    assert list(folder.iterdir()) == []
    wait_for(lambda: not processes.belonging_to(folder / "i-0"))
