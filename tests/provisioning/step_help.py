"""One step on a rehearsal's machine: run alone, and killed at each point where it changes something."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from machine_help import Client

from cloudrun.assets import provisioning_dir
from cloudrun.models import Result

# In front of sudo: counts, and at the wanted call the whole step is killed, as when the machine loses power.
SUDO = """\
#!/bin/sh
count=$(($(cat /tmp/count 2>/dev/null || echo 0) + 1))
echo "$count" >/tmp/count
[ "$count" -ne "${KILL_AT:-0}" ] || kill -9 0
exec /usr/bin/sudo "$@"
"""
# In every python3: the same at each of Theano's files that is made, written or renamed.
SITE = """\
import os, signal, sys
try:
    kill_at = int(open("/tmp/kill_at").read())
except OSError:
    kill_at = 0
seen = []
def hook(event, args):
    if event == "open":
        if not isinstance(args[2], int) or not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event not in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
        return
    if "-packages/theano" in str(args[0]).lower() or ".theanorc" in str(args[0]):
        seen.append(event)
        if len(seen) == kill_at:
            os.kill(0, signal.SIGKILL)
if kill_at:
    sys.addaudithook(hook)
"""
LIMIT = 60  # no step of ours changes something so often


class Step:
    """A step with its parameters, on one machine."""

    def __init__(self, client: Client, name: str, parameters: Mapping[str, str]) -> None:
        self._client = client
        self._given = " ".join(f"{key}={shlex.quote(value)}" for key, value in parameters.items())
        self._file = f"{name}.sh"
        script = (provisioning_dir() / "steps" / self._file).read_bytes()
        client.shell().run(f"cat >{self._file}", input=script)
        client.shell().run("mkdir -p bin; cat >bin/sudo; chmod +x bin/sudo", input=SUDO.encode())

    def run(self, verb: str, kill_at: int = 0) -> Result:
        before = f"KILL_AT={kill_at} PATH=$HOME/bin:$PATH {self._given}"
        line = f"{before} setsid -w sh {self._file} {verb} </dev/null"
        return self._client.shell().run(line, check=False)

    def holds(self) -> bool:
        return self.run("check").exit_code == 0

    def apply(self) -> None:
        done = self.run("apply")
        assert done, done.stderr.decode()
        assert self.holds()

    def killed_before_each_change(self, undo: str, *, every: int = 1) -> Iterator[int]:
        """Yields after a kill before the 1st, the 2nd ... call of sudo, until it comes to its end.

        every: 2 for the 1st, the 3rd and so on.
        """
        for number in range(1, LIMIT, every):
            self._client.run(f"rm -f /tmp/count; {undo}")
            if self.run("apply", kill_at=number):
                return
            yield number
        raise AssertionError("it does not come to its end")

    def killed_at_files(self, undo: str, numbers: Iterable[int] = range(1, LIMIT)) -> Iterator[int]:
        """The same at the 1st, the 2nd ... file of Theano's that Python writes."""
        site = self._client.run(
            "python3 -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'"
        ).strip()
        self._client.shell().run(f"sudo tee {site}/sitecustomize.py >/dev/null", input=SITE.encode())
        for number in numbers:
            self._client.run(f"{undo}; echo {number} | sudo tee /tmp/kill_at >/dev/null")
            done = self.run("apply")
            self._client.run("sudo rm /tmp/kill_at")
            if done:
                return
            yield number
