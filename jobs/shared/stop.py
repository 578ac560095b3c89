"""SIGTERM means "save and come back": the job's side of a preemption, a deadline or a cancelled run.

Two phases. Before training there is nothing of value in memory, so the signal ends the process at once.
From `hold()` on the signal only sets `asked`; the training loop looks at it after each step, saves and calls
`leave()`. Both ways end with exit code 75, "resume me" (EX_TEMPFAIL of sysexits.h).
"""

from __future__ import annotations

import signal
import sys

EXIT_RESUME_ME = 75


class Stop:
    """Installs the handler. Make one before the slow imports, in the main thread."""

    def __init__(self) -> None:
        self.asked = False
        self._held = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def hold(self) -> None:
        """From now on the loop decides when to leave. Leaves at once if the signal was here already."""
        self._held = True
        if self.asked:
            self.leave("nothing was trained yet")

    def leave(self, why: str) -> None:
        """Say why, and end the process with 75."""
        print(f"SIGTERM: {why}; leaving with exit code {EXIT_RESUME_ME} (resume me)", flush=True)
        sys.exit(EXIT_RESUME_ME)

    def _on_signal(self, *_: object) -> None:
        self.asked = True
        if not self._held:
            self.leave("nothing was trained yet")
