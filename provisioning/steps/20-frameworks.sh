#!/bin/sh
# Install the frameworks that a stack pins, for the login user's python3.
# Usage: FRAMEWORKS="torch==2.7.1 numpy==2.2.6" 20-frameworks.sh check|apply
# check ends with 0 when pip finds every one at its pinned version. Safe to repeat after any interruption.
set -eu

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

has_pip() { python3 -m pip --version >/dev/null 2>&1; }

check() {
    has_pip || return 1
    for pin in $FRAMEWORKS; do
        python3 - "$pin" <<'PYTHON' || return 1
import sys
try:
    from importlib.metadata import PackageNotFoundError, version
except ImportError:  # Python below 3.8
    from pkg_resources import DistributionNotFound as PackageNotFoundError
    from pkg_resources import get_distribution
    version = lambda name: get_distribution(name).version
name, _, wanted = sys.argv[1].partition("==")
try:
    found = version(name).partition("+")[0]
except PackageNotFoundError:
    sys.exit(1)
sys.exit(bool(wanted) and found != wanted)
PYTHON
    done
}

install_pip() {
    has_pip && return
    command -v apt-get >/dev/null || fail "python3 has no pip here, and this is no system with apt-get"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install python3-pip
}

apply() {
    install_pip
    set -- --quiet --disable-pip-version-check --no-input
    # in an environment of its own pip needs no place of the user's; a system that forbids it must be told
    python3 -c 'import sys; sys.exit(sys.prefix != sys.base_prefix)' && set -- "$@" --user
    python3 -m pip install --help | grep -q -e --break-system-packages && set -- "$@" --break-system-packages
    # shellcheck disable=SC2086 # one word a framework
    python3 -m pip install "$@" $FRAMEWORKS
}

[ -n "${FRAMEWORKS:-}" ] || fail "FRAMEWORKS is empty"
case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    *) fail "usage: 20-frameworks.sh check|apply" ;;
esac
