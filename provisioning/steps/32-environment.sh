#!/bin/sh
# The stack's variables for every login and sudo, as a block of /etc/environment (pam_env reads it). Runs get
# the same ones from their own client, and a job's `env` wins over them. {cpus} stands for the processors here.
# Usage: ENVIRONMENT="OMP_NUM_THREADS={cpus}" 32-environment.sh check|apply     One name=value a line. Needs root.
set -eu

FILE=/etc/environment
BEGIN="# cloudrun: begin" END="# cloudrun: end"

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

block() {
    echo "$BEGIN"
    printf '%s\n' "$ENVIRONMENT" | sed "s/{cpus}/$(nproc)/g"
    echo "$END"
}

check() { [ "$(sed -n "/^$BEGIN\$/,/^$END\$/p" "$FILE" 2>/dev/null)" = "$(block)" ]; }

apply() {
    { sed "/^$BEGIN\$/,/^$END\$/d" "$FILE" 2>/dev/null || true; block; } | as_root tee "$FILE.new" >/dev/null
    as_root chmod 644 "$FILE.new"
    as_root mv "$FILE.new" "$FILE"
}

[ -n "${ENVIRONMENT:-}" ] || exit 0
case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    *) fail "usage: 32-environment.sh check|apply" ;;
esac
