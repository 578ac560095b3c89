"""How fast a job folder reaches a machine: our scan, snapshot and push beside `rsync -a`, over the same sshd.

Data sets: 5,000 and 100 files of 4 KB, and one of 512 MB, all random bytes. Each is sent to an empty machine
(first), again with nothing changed, and again with ten files rewritten; directly and through a proxy that
makes a round trip of 20 ms. A cold case begins without a connection, a warm one has a control connection
open. What is timed for us is everything: reading and hashing the folder, keeping the snapshot at home,
and the push until the machine holds and has verified all of it.

Everything lies on a memory file system where there is one (--folder names another place): what a disk does
with five thousand new files depends on what was deleted on it a minute ago more than on who writes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from delay import delayed
from measure import Goal, Report, arguments, show, wall
from sshd import Server, openssh_server, ssh_options

from cloudrun import bundle
from cloudrun.config import Settings
from cloudrun.remote import process, transfer
from cloudrun.remote.connect import connect
from cloudrun.remote.openssh import control_folder

PHASES = ("first", "unchanged", "10 changed")
CHANGED = 10
MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class DataSet:
    name: str
    files: int
    size: int
    phases: tuple[str, ...] = PHASES
    rtts_ms: tuple[int, ...] = (0, 20)

    def write(self, folder: Path) -> Path:
        for number in range(self.files):
            path = folder / f"{number // 100:03}" / f"{number:05}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for _ in range(0, self.size, 1 << 20):
                    file.write(os.urandom(min(self.size, 1 << 20)))
        return folder


SETS = {
    "A": DataSet("5,000 x 4 KB", 5_000, 4_096),
    "H": DataSet("100 x 4 KB", 100, 4_096),
    "B": DataSet("512 MB", 1, 512 << 20, phases=("first",), rtts_ms=(0,)),
}


@dataclass
class Line:
    """One server, reached directly or through the proxy, and a folder for what the runners need."""

    server: Server
    port: int
    scratch: Path

    def ssh(self, control: Path | None = None) -> list[str]:
        words = ["ssh", *ssh_options(self.server.address(self.port), self.scratch)]
        return [
            f"ControlPath={control}" if word == "ControlPath=none" and control else word for word in words
        ]


@dataclass
class Rsync:
    """`rsync -a` over ssh, with a connection of its own each time or over a control connection."""

    line: Line
    source: Path
    warm: bool
    target: Path = field(init=False)

    def prepare(self, number: int) -> None:
        self.target = self.line.server.home / f"rsync-{self.warm}-{number}"
        self.target.mkdir()

    def connect(self) -> None:
        if self.warm and not self._control.exists():
            command = [*self.line.ssh(self._control), "-M", "-N", "-f", "127.0.0.1"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def sync(self) -> None:
        ssh = " ".join(self.line.ssh(self._control if self.warm else None))
        command = ["rsync", "-a", "-e", ssh, f"{self.source}/", f"127.0.0.1:{self.target}/"]
        subprocess.run(command, check=True)

    def clean(self) -> None:
        shutil.rmtree(self.target)

    def close(self) -> None:
        end_control(self._control)

    @property
    def _control(self) -> Path:
        return self.line.scratch / "rsync.sock"


@dataclass
class Ours:
    """The stages bundle and start as they push code: scan, snapshot, push_bundle, over the OpenSSH shell."""

    line: Line
    source: Path
    warm: bool
    home: Path = field(init=False)

    def prepare(self, number: int) -> None:
        """An empty machine that has the agent, and an empty home."""
        self.clean()
        self.home = self.line.scratch / f"home-{self.warm}-{number}"
        settings = Settings(home=self.home, shell="openssh")
        self.shell = connect(self.line.server.address(self.line.port), settings, machine="bench")
        process.list_runs(self.shell)

    def connect(self) -> None:
        """Warm: over the connection that the last command left. Cold: that connection is gone."""
        if self.warm:
            self.shell.run("true")
        else:
            self.close()

    def sync(self) -> None:
        objects = self.home / "objects"
        opening = Thread(target=self.shell.run, args=("true",), daemon=True)
        opening.start()  # as `submit` does: the connection is made while the folder is read
        found = bundle.scan(self.source, shared={}, outputs="outputs", cache_dir=self.home / "cache")
        kept = bundle.snapshot(found, objects)
        transfer.push_bundle(self.shell, kept, bundle.content_of(objects))
        opening.join()

    def clean(self) -> None:
        shutil.rmtree(self.line.server.home / ".cloudrun", ignore_errors=True)
        if hasattr(self, "home"):
            shutil.rmtree(self.home, ignore_errors=True)

    def close(self) -> None:
        for control in control_folder().glob("*.[0-9]"):
            end_control(control)


def main() -> None:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--sets", default="AHB", help="which data sets: A 5,000 files, H 100 files, B 512 MB")
    parser.add_argument(
        "--folder", type=Path, default=MEMORY if MEMORY.is_dir() else None, help="where to work"
    )
    options = parser.parse_args()
    if shutil.which("rsync") is None:
        parser.error("rsync is not installed")
    with private_folder(options.folder) as folder, openssh_server(folder / "sshd") as server:
        reports = [
            report
            for letter in options.sets
            for rtt_ms in SETS[letter].rtts_ms
            for report in measure(SETS[letter], rtt_ms, server, folder, options.rounds)
        ]
    show(reports, as_json=options.json)


def measure(data: DataSet, rtt_ms: int, server: Server, folder: Path, rounds: int) -> list[Report]:
    reports = {phase: new_report(data, rtt_ms, phase) for phase in data.phases}
    scratch = Path(tempfile.mkdtemp(dir=folder))
    with delayed("127.0.0.1", server.port, rtt_ms) as port:
        line = Line(server, port, scratch)
        original = data.write(scratch / "data")
        runners: dict[str, Rsync | Ours] = {}
        for warm in (False, True):
            words = "warm" if warm else "cold"
            runners[f"rsync -a, {words}"] = Rsync(line, copy_of(original, f"r{warm}"), warm)
            runners[f"cloudrun, {words}"] = Ours(line, copy_of(original, f"c{warm}"), warm)
        all_rounds(runners, rounds, reports)
    shutil.rmtree(scratch)
    return list(reports.values())


def all_rounds(runners: Mapping[str, Rsync | Ours], rounds: int, reports: Mapping[str, Report]) -> None:
    """One that warms up and so many that count; then the runners are closed."""
    try:
        for number in range(-1, rounds):
            one_round(runners, number, reports)
    finally:
        for runner in runners.values():
            runner.close()


def one_round(runners: Mapping[str, Rsync | Ours], number: int, reports: Mapping[str, Report]) -> None:
    """Every runner through all phases, each to an empty target. Round -1 warms up and does not count."""
    for name, runner in runners.items():
        runner.prepare(number)
        for phase, report in reports.items():
            seconds = one_phase(runner, phase)
            if number >= 0:
                report.add(name, [seconds])
        runner.clean()


def one_phase(runner: Rsync | Ours, phase: str) -> float:
    if phase == "10 changed":
        rewrite_some(runner.source)
    runner.connect()
    return wall(runner.sync)


def new_report(data: DataSet, rtt_ms: int, phase: str) -> Report:
    """With the goals that this case has."""
    report = Report(f"{data.name}, {phase}, {rtt_ms} ms round trip", "s")
    limits = {
        ("5,000 x 4 KB", "first", 20): ("cloudrun, cold", 1.1),
        ("5,000 x 4 KB", "unchanged", 0): ("cloudrun, warm", 0.25),
        ("5,000 x 4 KB", "unchanged", 20): ("cloudrun, warm", 0.75),
        ("512 MB", "first", 0): ("cloudrun, cold", 1.0),
    }
    if (data.name, phase, rtt_ms) in limits:
        case, most = limits[data.name, phase, rtt_ms]
        report.goals = [Goal(case, "rsync -a, cold", most)]
    return report


def rewrite_some(folder: Path) -> None:
    files = sorted(folder.rglob("*.bin"))
    for path in files[:: max(1, len(files) // CHANGED)][:CHANGED]:
        path.write_bytes(os.urandom(path.stat().st_size))


def copy_of(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-{name}")))


def end_control(control: Path) -> None:
    if control.exists():
        subprocess.run(
            ["ssh", "-S", str(control), "-O", "exit", "-q", "x"], check=False, stderr=subprocess.DEVNULL
        )


@contextlib.contextmanager
def private_folder(below: Path | None) -> Iterator[Path]:
    """A folder for everything, our control sockets too: ending connections here ends no other ones."""
    with tempfile.TemporaryDirectory(prefix="sync-", dir=below) as name:
        os.environ["XDG_RUNTIME_DIR"] = name
        yield Path(name)


if __name__ == "__main__":
    main()
