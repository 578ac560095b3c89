"""What only a namespace machine has: a disk, root, a system and a network of its own; and no leftovers."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine_help import PORT, USER, Client, Rehearsal, free_address, need, wait_for

from cloudrun.errors import UsageError
from cloudrun.keys import make_keys
from cloudrun.server import processes
from cloudrun.sim import disk
from cloudrun.sim.machine import MachineHost

BUSY_S = 20.0  # what takes a moment may take this long on a busy computer


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    made = Rehearsal(tmp_path_factory.mktemp("rehearsal"), need("namespace"))
    yield made
    made.host.close()


@pytest.fixture(scope="module")
def shared(rehearsal: Rehearsal) -> Client:
    """For tests that change nothing of note."""
    return rehearsal.boot(disk_gb=7)


@pytest.fixture
def client(rehearsal: Rehearsal) -> Iterator[Client]:
    booted = rehearsal.boot(disk_gb=3)
    yield booted
    booted.machine.destroy()


def size_gb(client: Client) -> float:
    """Of /, as df says."""
    return int(client.run("df --output=size -B1 /").splitlines()[1]) / disk.GIB


def grow_inside(client: Client) -> None:
    """What one does on a rented machine whose disk was enlarged."""
    partition, file_system = client.run("findmnt -no SOURCE,FSTYPE /").split()
    device = client.run(f"lsblk -no PKNAME {partition}")
    client.run(f"sudo growpart /dev/{device} 1")
    client.run("sudo xfs_growfs /" if file_system == "xfs" else f"sudo resize2fs {partition}")


def test_the_root_file_system_is_a_disk_of_that_size(shared: Client) -> None:
    assert 6.7 < size_gb(shared) <= 7
    partition, file_system = shared.run("findmnt -no SOURCE,FSTYPE /").split()
    assert partition.endswith("p1")
    assert file_system in ("ext4", "xfs")
    assert shared.run("sudo sfdisk --json /dev/$(lsblk -no PKNAME " + partition + ")").count('"gpt"') == 1


def test_the_disk_grows_while_it_runs(client: Client) -> None:
    client.run("echo kept >file")
    client.machine.grow(5)
    assert size_gb(client) < 3
    grow_inside(client)
    assert 4.7 < size_gb(client) <= 5
    client.machine.grow(4)  # smaller: nothing
    client.machine.power_off()
    client.machine.boot()
    assert 4.7 < size_gb(client) <= 5
    assert client.run("cat file") == "kept"


def test_a_disk_that_grew_while_it_was_off_is_filled_at_boot(client: Client) -> None:
    client.machine.power_off()
    client.machine.grow(6)
    client.machine.boot()
    assert 5.7 < size_gb(client) <= 6


def test_a_disk_that_grew_before_the_first_boot(rehearsal: Rehearsal) -> None:
    client = rehearsal.create(disk_gb=2)
    client.machine.grow(4)
    client.machine.boot()
    assert 3.7 < size_gb(client) <= 4
    client.machine.destroy()


def test_the_image_stays_sparse(client: Client) -> None:
    image = next(client.folder.glob("disk.*"))
    assert image.stat().st_size == 3 * disk.GIB
    assert image.stat().st_blocks * 512 < disk.GIB / 4


def test_without_loop_devices_its_files_lie_in_a_folder(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(image: Path) -> disk.Attached:
        raise FileNotFoundError("/dev/loop-control")

    on = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", rehearsal.folder], capture_output=True)
    if on.stdout == b"overlay\n":
        pytest.skip("no layer can lie on a file system that is itself made of layers")
    monkeypatch.setattr(disk, "attach", refuse)
    client = rehearsal.boot()
    assert "no disk of its own" in client.log()
    client.run("echo kept >file")
    client.machine.power_off()
    client.machine.boot()
    assert client.run("cat file") == "kept"
    client.machine.destroy()
    assert not client.folder.exists()


def test_ubuntu_may_do_all_by_sudo_and_root_is_sent_away(shared: Client) -> None:
    assert shared.run("id -un; sudo id -un").split() == [USER, "root"]
    keys = shared.settings.keys_dir / shared.spec.id
    options = ["-o", f"UserKnownHostsFile={keys}/known_hosts", "-i", f"{keys}/id_ed25519", "-p", str(PORT)]
    command = ["ssh", "-F", "none", *options, f"root@{shared.spec.host}", "id"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as refused:  # it sleeps after its words
        assert refused.stdout
        said = refused.stdout.readline()
        refused.kill()
    assert said == 'Please login as the user "ubuntu" rather than the user "root".\n'


def test_root_logs_in_where_the_user_data_lets_it(rehearsal: Rehearsal) -> None:
    client = rehearsal.boot({"disable_root": False})
    assert client.shell(user="root").run("id -un").text == "root"
    client.machine.destroy()


def test_without_a_host_key_it_makes_its_own(rehearsal: Rehearsal) -> None:
    client = rehearsal.boot({"ssh_keys": None})
    key = client.shown_host_key()
    assert key not in {path.read_text().split()[1] for path in Path("/etc/ssh").glob("*.pub")}
    client.public_key = f"ssh-ed25519 {key}"
    assert client.run("id -un") == USER
    client.machine.destroy()


def test_a_script_as_user_data_runs_once_as_root(rehearsal: Rehearsal) -> None:
    keys = make_keys(rehearsal.settings.keys_dir / "i-script", comment="i-script")
    script = f"""#!/bin/sh
echo {keys.login_public} >/home/ubuntu/.ssh/authorized_keys
id -un >>/root/events
"""
    client = rehearsal.boot(user_data=gzip.compress(script.encode()), name="i-script")
    client.machine.power_off()
    client.machine.boot()
    client.public_key = f"ssh-ed25519 {client.shown_host_key()}"
    assert client.run("sudo cat /root/events") == "root"
    client.machine.destroy()


def test_python3_is_ours_with_its_packages(shared: Client) -> None:
    answer = shared.run("python3 -c 'import sys, cryptography; print(sys.executable, sys.version)'")
    assert answer == f"{sys.executable} {sys.version}"
    assert shared.run("sudo python3 -c 'import sys; print(sys.executable)'") == sys.executable


def test_this_computers_own_files_are_out_of_reach(shared: Client, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush")
    for path in (tmp_path / "secret", shared.folder, Path.home() / ".bashrc", Path(__file__)):
        assert not shared.shell().run(f"ls {path}", check=False)
    listed = shared.run("sudo ls -A /tmp /home /mnt /srv").split()
    ours = {part for path in (sys.executable, __file__) for part in Path(path).parts}  # the way to our Python
    assert [name for name in listed if name not in ours] == ["/home:", USER, "/mnt:", "/srv:", "/tmp:"]
    assert not shared.shell().run("cat /etc/shadow", check=False)
    before = Path("/etc/hosts").read_bytes(), sorted(Path("/usr/local/bin").iterdir())
    shared.run("echo changed | sudo tee /etc/hosts /usr/local/bin/new-program")
    assert (Path("/etc/hosts").read_bytes(), sorted(Path("/usr/local/bin").iterdir())) == before


def test_the_kernel_settings_are_not_its_own(shared: Client) -> None:
    swappiness = "/proc/sys/vm/swappiness"
    assert shared.run(f"cat {swappiness}")
    answer = shared.shell().run(f"cat {swappiness} | sudo tee {swappiness}", check=False)
    assert b"Read-only" in answer.stderr
    assert not shared.shell().run("sudo mknod /tmp/disk b 254 0", check=False)


def test_it_has_a_name_and_clocks_of_its_own(client: Client) -> None:
    assert client.run("hostname; cat /etc/hostname").split() == [client.spec.hostname] * 2
    assert socket.gethostname() != client.spec.hostname
    ask = "cat /proc/sys/kernel/random/boot_id; cut -d. -f1 /proc/uptime"
    first, up = client.run(ask).split()
    assert int(up) < BUSY_S
    assert first != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    client.machine.power_off()
    client.machine.boot()
    assert client.run(ask).split()[0] != first


def test_a_connection_is_seen_inside_at_the_machines_own_port(shared: Client) -> None:
    assert shared.run("echo $SSH_CONNECTION").split()[2:] == [shared.spec.host, str(PORT)]
    established = [
        row.split()[1] for row in shared.run("cat /proc/net/tcp").splitlines()[1:] if row.split()[3] == "01"
    ]
    assert f"{PORT:04X}" in {address.partition(":")[2] for address in established}


def test_the_end_of_one_way_passes_through(shared: Client) -> None:
    with socket.create_connection((shared.spec.host, PORT), timeout=BUSY_S) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n")
        said = b"".join(iter(lambda: stranger.recv(1000), b""))  # to the end that sshd makes of it
    assert said.startswith(b"SSH-2.0-")


def test_a_file_of_someone_who_is_not_there_yet_ends_write_files(rehearsal: Rehearsal) -> None:
    client = rehearsal.boot(
        {
            "write_files": [
                {"path": "/root/first", "content": "1"},
                {"path": "/root/second", "content": "2", "owner": "ubuntu:ubuntu"},
                {"path": "/root/third", "content": "3"},
                {"path": "/root/last", "content": "4", "owner": "ubuntu:ubuntu", "defer": True},
            ]
        }
    )
    ask = "sudo find /root -maxdepth 1 -name '[a-z]*' -type f -printf '%f '"
    assert sorted(client.run(ask).split()) == ["first", "last", "second"]
    assert client.run("sudo stat -c %U /root/last") == USER
    assert "write_files ended at /root/second" in client.log()
    client.machine.destroy()


def test_two_machines_do_not_see_each_other(shared: Client, client: Client) -> None:
    port = 20099
    serve = f"nohup python3 -m http.server --bind 0.0.0.0 {port} >/tmp/log 2>&1 &"
    shared.run(f"{serve} touch /tmp/mine")
    ask = f"python3 -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 5)\""
    wait_for(lambda: shared.shell().run(ask, check=False), seconds=BUSY_S)
    assert not client.shell().run(ask, check=False)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    assert not client.shell().run("ls /tmp/mine || pgrep -f http[.]server", check=False)
    assert shared.run("pgrep -f http[.]server")
    assert client.run("hostname") != shared.run("hostname")


def test_many_boot_at_once(rehearsal: Rehearsal) -> None:
    clients = [rehearsal.create() for _ in range(5)]
    threads = [threading.Thread(target=client.machine.boot) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {client.run("hostname") for client in clients} == {client.spec.hostname for client in clients}
    for client in clients:
        client.machine.destroy()


def test_switched_off_while_it_boots(rehearsal: Rehearsal) -> None:
    client = rehearsal.create({"bootcmd": ["sleep 100"]})
    failed = threading.Event()

    def boot() -> None:
        with pytest.raises(Exception, match="did not boot"):
            client.machine.boot()
        failed.set()

    thread = threading.Thread(target=boot)
    thread.start()
    wait_for(lambda: client.machine.running)
    client.machine.power_off()
    assert failed.wait(BUSY_S)
    thread.join()
    assert client.switched_off == []
    client.machine.destroy()


def test_a_killed_first_process_is_a_machine_that_went_off(client: Client) -> None:
    os.kill(int((client.folder / "pid").read_text().split()[0]), signal.SIGKILL)
    assert client.told.wait(BUSY_S)
    assert not client.machine.running


def traces(folder: Path) -> list[str]:
    """Processes, mounts and loop devices of the machines in that folder, all over this computer."""
    loops = Path("/sys/block").glob("loop*/loop/backing_file")
    found = [f"loop {path.parts[3]}" for path in loops if str(folder) in _read(path)]
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            found += [f"process {process.name}"] * (str(folder) in _read(process / "cmdline"))
            found += [f"mount of {process.name}"] * (str(folder) in _read(process / "mountinfo"))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_destroyed_machine_leaves_nothing(rehearsal: Rehearsal) -> None:
    client = rehearsal.boot()
    client.run("nohup sleep 1000 >/dev/null 2>&1 &")
    assert len(traces(client.folder)) > 3  # it can be seen that way
    client.machine.destroy()
    assert traces(client.folder) == []
    assert not client.folder.exists()


HOST = """
import sys, time
from pathlib import Path
from cloudrun.sim.machine import MachineHost, MachineSpec
host = MachineHost(Path(sys.argv[1]), ssh_port=int(sys.argv[2]), kind="namespace")
def make(number, address):
    spec = MachineSpec(f"i-{number}", address, f"ip-{number}", "ubuntu", b"", 3, lambda *_: (404, b""))
    machine = host.create(spec, on_off=print)
    machine.boot()
for number, address in enumerate(sys.argv[3:]):
    make(number, address)
print("ready", flush=True)
time.sleep(1000)
"""


def test_a_killed_host_leaves_folders_and_the_next_one_removes_them(tmp_path: Path) -> None:
    need("namespace")
    folder = tmp_path / "machines"
    addresses = [free_address(), free_address()]
    killed = subprocess.Popen(
        [sys.executable, "-c", HOST, str(folder), str(PORT), *addresses], stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout
    with killed, killed.stdout:
        assert killed.stdout.readline() == "ready\n"
        assert traces(folder)
        with pytest.raises(UsageError, match="host already"):
            MachineHost(folder, ssh_port=PORT)
        killed.kill()
    wait_for(lambda: not traces(folder))
    assert (folder / "i-0").is_dir()
    MachineHost(folder, ssh_port=PORT).close()
    assert list(folder.iterdir()) == []
    assert not any(processes.belonging_to(folder / f"i-{number}") for number in range(2))
