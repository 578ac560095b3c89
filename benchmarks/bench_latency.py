"""How long a person waits: submit to the first line of the log, a command on a machine, a line to the screen.

Two kinds of machine, both ready: `local` (our own SSH server) and an attached host (OpenSSH's sshd), the
second also through a proxy that makes a round trip of 20 ms. Beside each stands a cold `ssh HOST true` to
the same server. Whole commands are timed, the start of their interpreter with them; `in Python` is the same
through cloudrun.Client in a process that has started already.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from delay import delayed
from measure import (
    CLOUDRUN,
    Goal,
    Report,
    arguments,
    child,
    child_environment,
    compile_everything,
    in_turn,
    show,
    wall,
)
from sshd import openssh_server, ssh_options

from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.remote.shell import Shell

RTT_MS = 20
MACHINES = ("local", "sshd", f"sshd at {RTT_MS} ms")
NAMES = dict(zip(MACHINES, ("bench", "near", "far"), strict=True))
LINES, PAUSE_S = 200, 0.02

JOB = """\
name = "{name}"
command = ["python3", "-u", "-c", {code}]
stack = "none"
"""
STAMPS = f"import time\nfor _ in range({LINES}): time.sleep({PAUSE_S}); print(time.monotonic_ns())"


def main() -> None:
    parser = arguments(__doc__ or "", rounds=9)
    options = parser.parse_args()
    compile_everything()
    with machines() as client:
        home = client.settings.home
        waiting, commands = (
            Report("submit to the first line of the log", "s"),
            Report("a command on a machine", "s"),
        )
        for machine in MACHINES:
            for case, seconds in in_turn(waits(client, machine), options.rounds).items():
                report = commands if "exec" in case or "in Python" in case else waiting
                report.add(case, seconds)
                if case.startswith("ssh"):
                    commands.add(case, seconds)
            waiting.goals.append(Goal(f"submit, {machine}", f"ssh, {machine}", 3))
            commands.goals.append(Goal(f"machines exec, {machine}", f"ssh, {machine}", 0.2))
            commands.goals.append(Goal(f"in Python, {machine}", f"ssh, {machine}", 0.2))
        lines = line_report(home, max(1, options.rounds // 3))
    show([waiting, commands, lines], as_json=options.json)


def waits(client: Client, machine: str) -> dict[str, Callable[[], float]]:
    name, home = NAMES[machine], client.settings.home
    environ = child_environment(home)
    shell: Shell = client.shell(name)
    ssh_true: list[str | Path] = [
        "ssh",
        *ssh_options(shell.address, home),
        "-l",
        shell.address.user,
        shell.address.host,
        "true",
    ]
    exec_true: list[str | Path] = [CLOUDRUN, "machines", "exec", name, "true"]
    return {
        f"ssh, {machine}": lambda: child(ssh_true, env=environ).wall_s,
        f"submit, {machine}": partial(first_line, home, name),
        f"machines exec, {machine}": lambda: child(exec_true, env=environ).wall_s,
        f"in Python, {machine}": lambda: wall(partial(shell.run, "true")),
    }


def first_line(home: Path, name: str) -> float:
    """From the start of `cloudrun submit` to the first line that it shows of the job."""
    started = time.perf_counter()
    with command(home, "submit", str(home / "true"), "--on", name, "--yes") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - started
        process.communicate()
    if line != b"here\n" or process.returncode:
        raise RuntimeError(f"submit said {line!r} and exited {process.returncode}")
    return seconds


def line_report(home: Path, rounds: int) -> Report:
    report = Report(f"a line of the log to the screen, {LINES} lines {PAUSE_S * 1000:g} ms apart", "ms")
    for machine in MACHINES:
        limit = 20 + (RTT_MS / 2 if machine.endswith("ms") else 0)
        for watcher in ("submit", "logs -f"):
            for _ in range(rounds):
                report.add(f"{watcher}, {machine}", line_delays(home, NAMES[machine], watcher))
            report.goals.append(Goal(f"{watcher}, {machine}", "", limit, statistic="p95"))
    report.notes = ["The job stamps each line as it writes it; the clock of both ends is the same one."]
    return report


def line_delays(home: Path, name: str, watcher: str) -> list[float]:
    """Milliseconds from writing each line to its arrival here, in the command that submits or in another."""
    submit = ("submit", str(home / "stamps"), "--on", name, "--yes")
    if watcher == "submit":
        with command(home, *submit) as process:
            return delays(process)
    subprocess.run(
        [CLOUDRUN, *submit, "--detach"],
        env=child_environment(home),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with command(home, "logs", "-f", "last") as process:
        return delays(process)


def delays(process: subprocess.Popen[bytes]) -> list[float]:
    """The first fifth does not count: a watcher that comes later gets it in one piece."""
    assert process.stdout is not None
    found = [(time.monotonic_ns() - int(line)) / 1e6 for line in process.stdout if line.strip().isdigit()]
    if len(found) != LINES:
        raise RuntimeError(f"{len(found)} of {LINES} lines came")
    return found[LINES // 5 :]


def command(home: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [CLOUDRUN, *words],
        env=child_environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def machines() -> Iterator[Client]:
    """A home with the three machines, used once each, and two small jobs."""
    with tempfile.TemporaryDirectory(prefix="lat-") as name, openssh_server(Path(name, "sshd")) as server:
        home = Path(name, "home")
        for job, code in (("true", "print('here')"), ("stamps", STAMPS)):
            (home / job).mkdir(parents=True)
            (home / job / "job.toml").write_text(JOB.format(name=job, code=json.dumps(code)))
        client = Client(Settings(home=home))
        with delayed("127.0.0.1", server.port, RTT_MS) as port:
            client.launch(name=NAMES["local"], stack="none")
            for machine, at in zip(MACHINES[1:], (server.port, port), strict=True):
                target = f"{getpass.getuser()}@127.0.0.1:{at}"
                key = str(server.folder / "user_key")
                client.attach_machine(
                    NAMES[machine], target, host_key=client.scan_host_key(target), key_path=key
                )
            try:
                yield client
            finally:
                for machine_name in NAMES.values():
                    client.terminate(machine_name)


if __name__ == "__main__":
    main()
