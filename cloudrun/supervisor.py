"""The small process that walks a run when no terminal does: `python -m cloudrun.supervisor RUN FD`.

FD is the inherited hold on the run's lock, secrets come as JSON on stdin. It ends with the run;
should it die, the next command that looks at the run starts another.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime

from cloudrun import execute
from cloudrun.client import Client
from cloudrun.errors import CloudrunError


def main(arguments: list[str]) -> int:
    """Walk the run to its end (blocking). What goes wrong stands in the run's supervisor.log."""
    run_id, hold_fd = arguments
    os.set_inheritable(int(hold_fd), False)  # ours until we end; children of ours must not keep it
    secrets: Mapping[str, str] = json.loads(sys.stdin.read() or "{}")
    client = Client()
    try:
        execute.walk(client.context(secrets=secrets), client.run(run_id))
    except CloudrunError as error:
        sys.stderr.write(f"{datetime.now().astimezone().isoformat()} {error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
