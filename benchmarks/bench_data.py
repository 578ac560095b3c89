"""Datasets beside rsync and sha256sum: 10,000 small files to a machine, and how fast a folder is hashed.

To a machine: `data upload`, the push and the folder that a run gets, all of it verified, beside `rsync -a` to
an empty folder; and again with nothing changed. Both over OpenSSH's sshd, through a proxy that makes a round
trip of 20 ms, with a connection that is open and without one.

Hashing: the scan of a folder without remembered hashes, which also reads ignore rules and looks for secrets,
beside `find -print0 | xargs -0 sha256sum`. Everything lies on a memory file system where there is one.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from bench_sync import MEMORY, DataSet, Line, Ours, Rsync, all_rounds, copy_of, private_folder
from delay import delayed
from measure import Goal, Report, arguments, in_turn, show, wall
from sshd import Server, openssh_server

from cloudrun import datasets, datasets_remote
from cloudrun.config import Settings

RTT_MS = 20
MANY = DataSet("10,000 x 4 KB", 10_000, 4_096, phases=("first", "unchanged"))
LARGE = DataSet("512 MB", 1, 512 << 20)


class OurData(Ours):
    """A new version of a dataset, its content on the machine, and the folder of a run there."""

    def sync(self) -> None:
        settings = Settings(home=self.home, shell="openssh")
        made, _ = datasets.add_folder(settings, "bench", self.source)

        def send() -> None:
            datasets_remote.push(settings, self.shell, made.digest)

        datasets_remote.lay_out(self.shell, "bench.1", [("bench", made.digest)], send)


def main() -> None:
    options = arguments(__doc__ or "", rounds=5).parse_args()
    with private_folder(MEMORY if MEMORY.is_dir() else None) as folder:
        reports = [hashing(data, folder, options.rounds) for data in (MANY, LARGE)]
        with openssh_server(folder / "sshd") as server:
            reports += transfers(server, folder, options.rounds)
    show(reports, as_json=options.json)


def hashing(data: DataSet, folder: Path, rounds: int) -> Report:
    root = data.write(folder / "hashing" / data.name)
    program = f"find '{root}' -type f -print0 | xargs -0 sha256sum > /dev/null"

    def scan() -> None:
        datasets.scan_folder(Settings(home=Path(tempfile.mkdtemp(dir=folder))), root)

    cases = {
        "sha256sum": lambda: wall(lambda: subprocess.run(program, shell=True, check=True)),
        "cloudrun": lambda: wall(scan),
    }
    report = Report(f"{data.name}, hashed", "s", goals=[Goal("cloudrun", "sha256sum", 1.5)])
    for case, seconds in in_turn(cases, rounds).items():
        report.add(case, seconds)
    shutil.rmtree(root)
    return report


def transfers(server: Server, folder: Path, rounds: int) -> list[Report]:
    scratch = Path(tempfile.mkdtemp(dir=folder))
    reports = {
        phase: Report(f"{MANY.name} as data, {phase}, {RTT_MS} ms round trip", "s") for phase in MANY.phases
    }
    reports["first"].goals = [Goal("cloudrun, cold", "rsync -a, cold", 2.0)]
    reports["unchanged"].goals = [Goal("cloudrun, warm", "rsync -a, cold", 1.0)]
    with delayed("127.0.0.1", server.port, RTT_MS) as port:
        line = Line(server, port, scratch)
        original = MANY.write(scratch / "data")
        runners: dict[str, Rsync | Ours] = {}
        for warm, words in ((False, "cold"), (True, "warm")):
            runners[f"rsync -a, {words}"] = Rsync(line, copy_of(original, f"r{words}"), warm)
            runners[f"cloudrun, {words}"] = OurData(line, copy_of(original, f"c{words}"), warm)
        all_rounds(runners, rounds, reports)
    return list(reports.values())


if __name__ == "__main__":
    main()
