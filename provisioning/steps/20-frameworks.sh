#!/bin/sh
# Install the frameworks that a stack pins, for the login user's python3.
# Usage: FRAMEWORKS="torch==2.7.1 numpy==2.2.6" 20-frameworks.sh check|apply
#   WHEELS="torch=URL"            where those are that no index has
#   HASHES="numpy=HEX,HEX six=HEX"  sha256 of the files that will do; with any, pip takes nothing without one
#   PIP_INDEX=URL   the one index to ask, instead of pip's own
#   AS_FOUND=1      what is there does, at any version; only what is missing is installed at its pin
# check ends with 0 when pip finds every one at its pinned version. Safe to repeat after any interruption.
set -eu

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

has_pip() { python3 -c 'import pip' 2>/dev/null; }

# What does not hold yet: pins, and the folders of halves, where pip was killed: a pinned package that has its
# description, but not the list of its files, which comes last.
lacking() { # pins or halves
    python3 - "$1" "${AS_FOUND:-}" "$FRAMEWORKS" <<'PYTHON'
import os, re, site, sys, sysconfig
import pip
try:
    from importlib.metadata import PackageNotFoundError, version
except ImportError:  # Python below 3.8
    from pkg_resources import DistributionNotFound as PackageNotFoundError
    from pkg_resources import get_distribution
    version = lambda name: get_distribution(name).version

as_found, pins = sys.argv[2] == "1", sys.argv[3].split()
place = site.getusersitepackages() if sys.prefix == sys.base_prefix else sysconfig.get_path("purelib")

def plain(name):
    return re.sub("[-_.]+", "_", name).lower()

def halves():
    names = set(plain(pin.partition("==")[0]) for pin in pins)
    for entry in os.listdir(place) if os.path.isdir(place) else ():
        folder = os.path.join(place, entry)
        ours = entry.endswith(".dist-info") and plain(entry.split("-")[0]) in names
        if ours and not os.path.exists(os.path.join(folder, "RECORD")):
            yield folder

def missing():
    for pin in pins:
        name, _, wanted = pin.partition("==")
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            found = ""
        if not found or wanted and found != wanted and not as_found:
            yield pin

found = list(halves())
if sys.argv[1] == "pins":
    found += missing()
sys.stdout.write("".join(each + "\n" for each in found))
PYTHON
}

check() { found=$(lacking pins 2>/dev/null) && [ -z "$found" ]; }

forget_halves() { # pip takes them for whole
    lacking halves | while read -r folder; do
        if [ -w "$folder" ]; then rm -rf "$folder"; else as_root rm -rf "$folder"; fi
    done
}

install_pip() {
    has_pip && return
    command -v apt-get >/dev/null || fail "python3 has no pip here, and this is no system with apt-get"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install python3-pip
}

# Variables, for pips of all ages: an old one passes over a name that it does not know. With an index of its
# own, no other one of a file or a variable is asked.
pip_environment() {
    echo PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_BREAK_SYSTEM_PACKAGES=1
    [ -n "${PIP_INDEX:-}" ] || return 0
    echo "PIP_CONFIG_FILE=/dev/null PIP_INDEX_URL=$PIP_INDEX PIP_EXTRA_INDEX_URL= PIP_FIND_LINKS="
    case $PIP_INDEX in http://*) host=${PIP_INDEX#http://} && echo "PIP_TRUSTED_HOST=${host%%[:/]*}" ;; esac
}

# What pip is to install, in its own words (a requirements file).
requirements() { # pins
    python3 - "$1" "${WHEELS:-}" "${HASHES:-}" <<'PYTHON'
import sys

pins, wheels, hashes = (argument.split() for argument in sys.argv[1:])
wheels = dict(word.split("=", 1) for word in wheels)
hashes = dict(word.split("=", 1) for word in hashes)
for pin in pins:
    name = pin.partition("==")[0]
    line = "%s @ %s" % (name, wheels[name]) if name in wheels else pin
    known = [" --hash=sha256:" + each for each in hashes.get(name, "").split(",") if each]
    sys.stdout.write(line + "".join(known) + "\n")
PYTHON
}

# For the login user; in an environment of its own pip needs no place of the user's, but maybe root's rights.
apply() {
    install_pip
    forget_halves
    pins=$FRAMEWORKS # all of them, or pip would move one to suit another
    [ "${AS_FOUND:-}" != 1 ] || pins=$(lacking pins)
    place=$(python3 -c 'import sys, sysconfig
print("--user" if sys.prefix == sys.base_prefix else sysconfig.get_path("purelib"))')
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    requirements "$pins" >"$work/requirements.txt"
    # shellcheck disable=SC2046 # one word a variable
    set -- env $(pip_environment) "$(command -v python3)" -m pip install --requirement "$work/requirements.txt"
    [ -z "${HASHES:-}" ] || set -- "$@" --require-hashes
    if [ "$place" = --user ]; then "$@" --user; elif [ -w "$place" ]; then "$@"; else as_root "$@"; fi
}

[ -n "${FRAMEWORKS:-}" ] || fail "FRAMEWORKS is empty"
case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    *) fail "usage: 20-frameworks.sh check|apply" ;;
esac
