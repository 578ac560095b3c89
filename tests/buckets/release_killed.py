"""A client that kills itself (SIGKILL) when the first of a run's outputs is in its bucket.

`release_killed.py HOME JOB ADDRESS`
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from cloudrun import bucket_outputs
from cloudrun.client import Client
from cloudrun.config import Settings
from cloudrun.events import Event, Progress

home, job, address = sys.argv[1:]


def deadly(event: Event) -> None:
    if isinstance(event, Progress) and event.what == "store":
        os.kill(os.getpid(), signal.SIGKILL)


bucket_outputs.THREADS = 1
client = Client(Settings(home=Path(home), poll_s=0.2))
client.submit(client.plan(job, type="local", outputs_to=address), on_event=deadly)
sys.exit("the point was never reached")
