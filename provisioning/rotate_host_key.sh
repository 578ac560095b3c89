#!/bin/sh
# Gives the machine an ed25519 host key that was made on it. Two steps, each safe to repeat; between them
# the new public line goes home.
#   prepare KEY OLD NEXT   makes the new key beside KEY, and prints its public line. OLD is the line of the
#                          key in place; NEXT, if not empty, the one that may be in place by now.
#   install KEY LINE PID   puts the key of that line in place, and tells sshd, whose process id stands in PID.
# A line is "type base64". KEY is replaced only if it is the key that home knows: nothing else is ever touched.
set -eu
umask 077
STEP=$1
KEY=$2
FRESH=$KEY.cloudrun

line_of() {
  if [ -f "$1" ]; then ssh-keygen -y -P '' -f "$1" | cut -d ' ' -f 1,2; fi
}

say() {
  echo "$1" >&2
  exit 3
}

prepare() {
  IN_PLACE=$(line_of "$KEY")
  if [ -n "$2" ] && [ "$IN_PLACE" = "$2" ]; then
    echo "$2"
    return
  fi
  [ "$IN_PLACE" = "$1" ] || say "the host key in $KEY is not the one that this machine shows"
  if [ ! -f "$FRESH" ]; then
    rm -rf "$FRESH".?????? # of one that was killed here
    DRAFT=$(mktemp -d "$FRESH.XXXXXX")
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$DRAFT/key"
    mv "$DRAFT/key" "$FRESH"
    rm -rf "$DRAFT"
  fi
  line_of "$FRESH"
}

install_key() {
  if [ "$(line_of "$KEY")" != "$1" ]; then
    [ "$(line_of "$FRESH")" = "$1" ] || say "the new host key has changed meanwhile"
    mv "$FRESH" "$KEY"
  fi
  echo "$1" >"$KEY.pub.cloudrun"
  chmod 644 "$KEY.pub.cloudrun"
  mv "$KEY.pub.cloudrun" "$KEY.pub"
  if command -v restorecon >/dev/null; then restorecon "$KEY" "$KEY.pub" || true; fi
  sync
  reload "$2"
}

# An sshd that is started anew for each connection, by systemd or inetd, needs to be told nothing.
reload() {
  if [ -f "$1" ] && PID=$(cat "$1") && [ "$(cat "/proc/$PID/comm" 2>/dev/null)" = sshd ]; then
    kill -HUP "$PID"
  elif [ -d /run/systemd/system ]; then
    systemctl reload ssh 2>/dev/null || systemctl reload sshd 2>/dev/null || true
  fi
}

shift 2
case $STEP in
prepare) prepare "$@" ;;
install) install_key "$@" ;;
*) say "prepare or install" ;;
esac
