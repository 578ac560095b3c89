"""cloudrun: rent a GPU, run a job folder on it, bring the results home.

The public names are loaded on use, so that `import cloudrun` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudrun.client import Client
    from cloudrun.config import Settings, load_settings
    from cloudrun.errors import CloudrunError
    from cloudrun.models import Job, Machine, MachineState, Market, Offer, Plan, Run, RunState

__version__ = "0.1.0"

_HOME_OF = {
    "Client": "client",
    "CloudrunError": "errors",
    "Job": "models",
    "Machine": "models",
    "MachineState": "models",
    "Market": "models",
    "Offer": "models",
    "Plan": "models",
    "Run": "models",
    "RunState": "models",
    "Settings": "config",
    "load_settings": "config",
}
__all__ = [
    "Client",
    "CloudrunError",
    "Job",
    "Machine",
    "MachineState",
    "Market",
    "Offer",
    "Plan",
    "Run",
    "RunState",
    "Settings",
    "load_settings",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOME_OF:
        raise AttributeError(f"module 'cloudrun' has no attribute {name!r}")
    return getattr(import_module(f"cloudrun.{_HOME_OF[name]}"), name)
