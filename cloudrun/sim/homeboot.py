"""An embedded machine's boot: what its user data says, done within its home by the machine's one user.

Paths below the login user's home lie in the machine's own, all others below HOME/.system; scripts are
rewritten so that they find them there. Owners, users and what only root can do are left out.
Run as a process of the machine, with its environment: `PLAN early` and `PLAN late`. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cloudrun.sim import cloudinit
from cloudrun.sim.cloudconfig import CloudConfig

SYSTEM = ".system"
TRANSLATED = (cloudinit.CLOUD, "/root", "/var/log")  # besides what the user data itself writes


@dataclass(frozen=True, slots=True)
class HomePlan:
    """What that process needs to know."""

    id: str
    user: str
    home: str
    config: CloudConfig


def main() -> None:
    stored = json.loads(Path(sys.argv[1]).read_text())
    plan = HomePlan(**{**stored, "config": CloudConfig.from_dict(stored["config"])})
    stage = {"early": cloudinit.run_early, "late": cloudinit.run_late}[sys.argv[2]]
    stage(plan.config, place(plan))


def place(plan: HomePlan) -> cloudinit.Place:
    home = Path(plan.home)
    theirs = Path("/home") / plan.user
    for folder in TRANSLATED:
        (home / SYSTEM / folder[1:]).mkdir(parents=True, exist_ok=True)

    def locate(path: str) -> Path:
        if Path(path).is_relative_to(theirs):
            return home / Path(path).relative_to(theirs)
        return home / SYSTEM / path.lstrip("/")

    written = {file.path for file in plan.config.files} | {str(theirs), *TRANSLATED}
    # The longest first: a file before the folder that it is in. Whole names only.
    names = "|".join(re.escape(path) for path in sorted(written, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w./-])(?:{names})(?![\w-])")

    return cloudinit.Place(
        id=plan.id,
        environment=dict(os.environ),
        log=_say,
        locate=locate,
        translate=lambda text: pattern.sub(lambda found: str(locate(found[0])), text),
        owns=False,
    )


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)  # noqa: T201  # the boot log
