#!/bin/sh
# Persistence, auto-boost and application clocks of each GPU, in the order that AWS's guide gives ("Optimize GPU
# settings"). Usage: PERSISTENCE=on AUTO_BOOST=off CLOCKS=2505,875 40-gpu-tuning.sh check|apply|tune
# Needs root. A GPU or driver that does not support one of them says so, and goes without. Unset: left as it is.
# No GPU: nothing to tune.
#
# All of it is lost at a reboot. So `apply` leaves a copy of this very script with its parameters where cloud-init
# finds it at every boot, after the guard's, and that copy is called to `tune`.
set -eu

DONE=/run/cloudrun-gpu-tuning # of this boot
HOOKS=/var/lib/cloud/scripts/per-boot
HOOK=$HOOKS/cloudrun_gpu_tuning.sh # sorts behind cloudrun.sh

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

wanted() { echo "${PERSISTENCE:-} ${AUTO_BOOST:-} ${CLOCKS:-}"; }

hook() {
    echo "#!/bin/sh"
    echo "PERSISTENCE=${PERSISTENCE:-} AUTO_BOOST=${AUTO_BOOST:-} CLOCKS=${CLOCKS:-}"
    echo "PATH=\$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    echo "set -- tune"
    cat "$0"
}

check() {
    command -v nvidia-smi >/dev/null || return 0
    [ "$(cat "$DONE" 2>/dev/null)" = "$(wanted)" ] || return 1
    [ ! -d "$HOOKS" ] || hook | cmp -s - "$HOOK"
}

set_one() { # what it is, then the words for nvidia-smi
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

tune() {
    command -v nvidia-smi >/dev/null || return 0
    gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>&1) || fail "nvidia-smi says: $gpus"
    case ${PERSISTENCE:-} in on) set_one persistence -pm 1 ;; off) set_one persistence -pm 0 ;; esac
    case ${AUTO_BOOST:-} in
        on) set_one auto-boost --auto-boost-default=1 ;;
        off) set_one auto-boost --auto-boost-default=0 ;;
    esac
    [ -z "${CLOCKS:-}" ] || set_one "application clocks" -ac "$CLOCKS"
    wanted | as_root tee "$DONE" >/dev/null
}

# What a kill leaves of it has another name and is no program.
leave_hook() {
    if [ ! -d "$HOOKS" ]; then
        echo "no cloud-init here: at the next boot the GPUs are as their driver has them" >&2
        return
    fi
    hook | as_root tee "$HOOKS/cloudrun_gpu_tuning.new" >/dev/null
    as_root chmod 755 "$HOOKS/cloudrun_gpu_tuning.new"
    as_root mv -f "$HOOKS/cloudrun_gpu_tuning.new" "$HOOK"
}

apply() {
    case $(wanted) in *[!a-z0-9,\ ]*) fail "no values for a GPU: $(wanted)" ;; esac # the hook is shell text
    tune
    leave_hook
}

case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    tune) tune ;;
    *) fail "usage: 40-gpu-tuning.sh check|apply|tune" ;;
esac
