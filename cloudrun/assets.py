"""Where the files that travel with the package are: jobs/, provisioning/ and images/.

In a checkout they stand beside the package; in an installed wheel they are inside it, under
`cloudrun/_assets/`. Both have the same shape, so nothing else needs to know which it is.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def jobs_dir() -> Path:
    """The bundled jobs, one folder each, and `shared/`."""
    return _root() / "jobs"


def shared_dir() -> Path:
    """The bundled modules that a job may name in `shared`."""
    return jobs_dir() / "shared"


def images_dir() -> Path:
    """The stacks, one TOML file each."""
    return _root() / "images"


def provisioning_dir() -> Path:
    """The steps and policies with which a fresh machine is made ready."""
    return _root() / "provisioning"


def bundled_jobs() -> list[str]:
    """Names of the bundled jobs, sorted."""
    folder = jobs_dir()
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / "job.toml").is_file())


@cache
def _root() -> Path:
    inside = PACKAGE / "_assets"
    return inside if inside.is_dir() else PACKAGE.parent
