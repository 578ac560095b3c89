"""Shell completion: the script for bash, zsh or fish, printed or put where the shell looks for it."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from cloudrun.cli import render
from cloudrun.cli.lazy import COMPLETE
from cloudrun.errors import UsageError

SHELLS = ("bash", "zsh", "fish")


def run(app: click.Command, action: str, shell: str) -> None:
    """`action` is install_completion or show_completion; without a shell it is the one that $SHELL names."""
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError(f"no completion for the shell {name!r}", hint=f"name one of: {', '.join(SHELLS)}")
    if action == "show_completion":
        render.data(script(app, name))
        return
    path = place(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script(app, name) + "\n", encoding="utf-8")
    render.data(str(path))
    render.say(NEXT[name])


def script(app: click.Command, shell: str) -> str:
    """What the shell has to read."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # SHELLS names only those that click knows
    return kind(app, {}, "cloudrun", COMPLETE).source()


def place(shell: str) -> Path:
    """Where that shell loads completions from by itself (zsh: after a line in its .zshrc)."""
    home = Path.home()
    if shell == "bash":  # bash-completion's folder of the user
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
        return data / "bash-completion/completions/cloudrun"
    if shell == "fish":
        return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish/completions/cloudrun.fish"
    return home / ".zfunc/_cloudrun"


NEXT = {
    "bash": "open a new terminal; it needs the package bash-completion",
    "zsh": "add to ~/.zshrc, if it is not there: fpath+=~/.zfunc; autoload -Uz compinit; compinit",
    "fish": "open a new terminal",
}
