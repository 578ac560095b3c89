"""The environment of every process of a local machine: made anew, nothing of the caller's leaks in."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path

from cloudrun.server.folder import MachineFolder
from cloudrun.server.processes import MACHINE_VARIABLE

# What a machine takes from the computer that it is a part of: where programs, libraries and the GPU
# are, language and time zone. Everything else (cloud credentials, tokens, proxies) stays outside.
KEPT_NAMES = ("LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
KEPT_PREFIXES = ("LC_", "CUDA_", "NVIDIA_")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def machine_environment(folder: MachineFolder, *, data_dir: str, caller: Mapping[str, str]) -> dict[str, str]:
    """The whole environment. The folder of this interpreter stands first in PATH."""
    kept = {
        name: value for name, value in caller.items() if name in KEPT_NAMES or name.startswith(KEPT_PREFIXES)
    }
    user = pwd.getpwuid(os.getuid())
    interpreters = str(Path(sys.executable).parent)
    return kept | {
        "PATH": f"{interpreters}:{caller.get('PATH') or SYSTEM_PATH}",
        "HOME": str(folder.home),
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": user.pw_shell or "/bin/sh",
        "CLOUDRUN_DATA_DIR": data_dir,
        MACHINE_VARIABLE: str(folder.path),
    }
