#!/bin/sh
# The Python that a stack is for, with pip and venv: the system's own, which its frameworks are installed for.
# Usage: PYTHON=3.5 16-python.sh check|apply     PYTHON empty: whatever python3 there is.
# Needs root. No other Python is installed: Ubuntu 16.04 has 3.5 and 22.04 has 3.10, and a stack that asks for
# something else was given the wrong image.
set -eu

PYTHON=${PYTHON:-}

LAST_PIP_35=20.3.4 # 21.0 dropped Python 3.5 (pip's own changelog); Ubuntu 16.04's 8.1.1 knows no newer wheels

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# "3.10 24.0": of Python and of its pip; nothing while pip or venv is missing.
found() {
    python3 -c 'import sys, pip, venv, ensurepip; print("%d.%d" % sys.version_info[:2], pip.__version__)' 2>/dev/null || true
}

check() {
    case $(found) in
        "") return 1 ;;
        "3.5 $LAST_PIP_35") [ "${PYTHON:-3.5}" = 3.5 ] ;;
        "3.5 "*) return 1 ;;
        "$PYTHON "*) return 0 ;;
        *) [ -z "$PYTHON" ] ;;
    esac
}

apply() {
    version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=
    if [ -n "$PYTHON" ] && [ -n "$version" ] && [ "$version" != "$PYTHON" ]; then
        fail "python3 is $version here and the stack is for $PYTHON: its base image is another one"
    fi
    if [ -z "$(found)" ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 update
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 install \
            python3 python3-pip python3-venv
    fi
    case $(found) in "3.5 "*) python3 -m pip install --quiet --user "pip==$LAST_PIP_35" ;; esac
}

case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    *) fail "usage: 16-python.sh check|apply" ;;
esac
