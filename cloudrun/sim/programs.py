"""Programs that a rehearsal's machines have instead of this computer's: `shutdown` and its kin, `python3`,
and on an embedded machine what takes root."""

from __future__ import annotations

import signal
from pathlib import Path

# What systemd's process 1 takes for these two, systemd(1).
POWER_OFF, REBOOT = int(signal.SIGRTMIN) + 4, int(signal.SIGRTMIN) + 5

# As shutdown(8): at once, in some minutes, or not after all; in a minute where no time is given.
SHUTDOWN = """\
#!/bin/sh
{first}
act='{act}' when={when} waiting={waiting}
while [ $# -gt 0 ]; do
  case "$1" in
    --reboot) act='{reboot}' ;;
    --*) ;;
    now) when=0 ;;
    +*) when=${{1#+}} ;;
    -*c*) kill -- "-$(cat "$waiting")" && rm "$waiting"; exit ;;
    -*r*) act='{reboot}' ;;
    -*) ;;
    *) echo "${{0##*/}}: only now and +MINUTES are known here, not $1" >&2; exit 1 ;;
  esac
  shift
done
if [ "$when" -eq 0 ]; then eval "exec $act"; fi
setsid sh -c "sleep $((when * 60)) && $act" </dev/null >/dev/null 2>&1 &
echo $! >"$waiting"
"""
AS_ROOT = 'if [ "$(id -u)" -ne 0 ]; then exec sudo -n "$0" "$@"; fi'

# One user does it all on an embedded machine, whoever is asked to. What cloudrun's payload put into /var/lib
# lies below its home (see homeboot.py).
SUDO = """\
#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    --) shift; break ;;
    -[!-]*[ugpCDRT] | -[ugpCDRT]) shift 2 ;; # alone, or last of several letters, with a value behind
    -*) shift ;;
    *=*) export "$1"; shift ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || set -- "${SHELL:-/bin/sh}"
for word do
  shift
  case "$word" in
    /var/lib/cloudrun/*) [ -e "$word" ] || word=$HOME/.system$word ;;
  esac
  set -- "$@" "$word"
done
exec "$@"
"""
SU = """\
#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in
    -c | --command) exec /bin/sh -c "$2" ;;
    --) shift; break ;;
    -u | -s | -g | -G) shift 2 ;;
    *) shift ;;
  esac
done
[ $# -gt 0 ] || set -- "${SHELL:-/bin/sh}"
exec "$@"
"""
NOTHING = "#!/bin/sh\nexit 0\n"


def install(python: str) -> None:
    """Into a namespace machine, before whatever this computer has by these names. As root, inside."""
    local = Path("/usr/local/bin")  # the first place to look, by every PATH
    ways = _ways_off(AS_ROOT, f"kill -{POWER_OFF} 1", f"kill -{REBOOT} 1", "/run/shutdown.pid")
    for name, text in ways.items():
        _write(Path("/usr/sbin") / name, text)
        (local / name).unlink(missing_ok=True)
        (local / name).symlink_to(Path("/usr/sbin") / name)
    for name in ("python3", "python"):  # no link: a virtual environment is found by the path that is run
        _write(local / name, f'#!/bin/sh\nexec {python} "$@"\n')


def install_embedded(folder: Path, power: Path) -> None:
    """Into the first folder of an embedded machine's PATH. `power` hears "off" and "reboot"."""
    ways = _ways_off("", f"echo off >{power}", f"echo reboot >{power}", str(folder / "shutdown.pid"))
    others = {"sudo": SUDO, "su": SU, "runuser": SU, "chown": NOTHING, "chgrp": NOTHING}
    for name, text in {**ways, **others}.items():
        _write(folder / name, text)


def _ways_off(first: str, off: str, reboot: str, waiting: str) -> dict[str, str]:
    return {
        name: SHUTDOWN.format(first=first, act=act, reboot=reboot, when=when, waiting=waiting)
        for name, act, when in (
            ("shutdown", off, 1),
            ("poweroff", off, 0),
            ("halt", off, 0),
            ("reboot", reboot, 0),
        )
    }


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)
