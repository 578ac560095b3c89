"""Every error that cloudrun raises on purpose. Each branch owns one exit code.

CloudrunError                    1
├── RunFailed                    1   the job itself ended with a non-zero exit code
├── UsageError                   2   what the user asked for cannot be done as asked
│   ├── JobError                     job.toml: file, line, key, what was expected
│   ├── ConfigError                  our settings or configuration file
│   ├── NotFound                     no run, machine or job of that name
│   ├── Ambiguous                    a prefix that fits more than one
│   └── Refused                      the plan breaks a limit (budget, secrets, fit)
├── ProviderError                3   the cloud said no
│   ├── Credentials
│   ├── Quota
│   ├── NoCapacity                   try the next candidate
│   ├── NotOffered
│   └── ImageNotFound
├── MachineError                 4   a machine that we have did not do its part
│   ├── BootFailed
│   ├── StepFailed                   a provisioning step
│   └── Preempted                    the provider took the machine
├── RemoteError                  5   the way to the machine
│   ├── ConnectFailed                nobody answers, or the key is refused
│   ├── HostKeyMismatch              somebody else answers
│   ├── ConnectionLost               it answered and then fell silent
│   ├── CommandFailed                carries the Result
│   └── TransferFailed               content arrived wrong, or was hostile
└── Interrupted                130   Ctrl-C

Every error carries a hint: what to do next, one sentence, no trailing full stop needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from cloudrun.models import Result


class CloudrunError(Exception):
    """The root: a message for people and a hint that says what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def add(self, more: str) -> None:
        """Go on with what else is to be said of it."""
        self.message = f"{self.message}; {more}"
        self.args = (self.message,)


class RunFailed(CloudrunError):
    """The job ended by itself with a non-zero exit code; the log says why."""


class UsageError(CloudrunError):
    exit_code = 2


class JobError(UsageError):
    """A job folder or its job.toml cannot be used."""


class ConfigError(UsageError):
    """A setting, from the environment or the configuration file, cannot be used."""


class NotFound(UsageError):
    """No record answers to that name, id or prefix."""


class Ambiguous(UsageError):
    """More than one record answers to that prefix."""


class Refused(UsageError):
    """The plan would break a limit; nothing was spent."""


class ProviderError(CloudrunError):
    exit_code = 3


class Credentials(ProviderError):
    """The account's credentials are missing, expired or lack a right."""


class Quota(ProviderError):
    """The account may not have that many of this; asking again will not help."""


class NoCapacity(ProviderError):
    """The provider has none free right now; the next candidate may do."""


class NotOffered(ProviderError):
    """The provider does not sell this type there, or no longer."""


class ImageNotFound(ProviderError):
    """No bootable disk for this stack in that region."""


class MachineError(CloudrunError):
    exit_code = 4


class BootFailed(MachineError):
    """The machine was launched but never became reachable."""


class StepFailed(MachineError):
    """A provisioning step ended with an error; its log tail is in the message."""


class Preempted(MachineError):
    """The provider took the machine back."""


class RemoteError(CloudrunError):
    exit_code = 5


class ConnectFailed(RemoteError):
    """No connection: refused, timed out, or authentication failed."""


class HostKeyMismatch(RemoteError):
    """The host answers with another key than the one recorded for this machine."""


class ConnectionLost(RemoteError):
    """The connection died while a command ran: says nothing about the command."""


class CommandFailed(RemoteError):
    """A remote command ended non-zero; `result` has its streams and exit code."""

    def __init__(self, message: str, *, result: Result, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.result = result


class TransferFailed(RemoteError):
    """Content did not arrive whole, or the other side sent what it must not."""


class Interrupted(CloudrunError):
    exit_code = 130
