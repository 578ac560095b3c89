#!/bin/sh
# Persistence, auto-boost and application clocks of each GPU, in the order that AWS's guide gives ("Optimize GPU
# settings"). Usage: PERSISTENCE=on AUTO_BOOST=off CLOCKS=2505,875 40-gpu-tuning.sh check|apply
# Needs root. All of it is lost at a reboot, and the step sets it again. A GPU or driver that does not support
# one of them says so, and goes without. Unset: left as it is. No GPU: nothing to tune.
set -eu

DONE=/run/cloudrun-gpu-tuning # of this boot

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

wanted() { echo "${PERSISTENCE:-} ${AUTO_BOOST:-} ${CLOCKS:-}"; }

check() {
    command -v nvidia-smi >/dev/null || return 0
    [ "$(cat "$DONE" 2>/dev/null)" = "$(wanted)" ]
}

tune() { # what it is, then the words for nvidia-smi
    what=$1
    shift
    for gpu in $gpus; do
        said=$(as_root nvidia-smi -i "$gpu" "$@" 2>&1) && continue
        case $said in
            *"ot supported"* | *"not available"*) echo "$what: not supported by GPU $gpu, left as it is" >&2 ;;
            *) fail "$what of GPU $gpu: $said" ;;
        esac
    done
}

apply() {
    gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>&1) || fail "nvidia-smi says: $gpus"
    case ${PERSISTENCE:-} in on) tune persistence -pm 1 ;; off) tune persistence -pm 0 ;; esac
    case ${AUTO_BOOST:-} in
        on) tune auto-boost --auto-boost-default=1 ;;
        off) tune auto-boost --auto-boost-default=0 ;;
    esac
    [ -z "${CLOCKS:-}" ] || tune "application clocks" -ac "$CLOCKS"
    wanted | as_root tee "$DONE" >/dev/null
}

case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    *) fail "usage: 40-gpu-tuning.sh check|apply" ;;
esac
