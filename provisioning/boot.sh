#!/bin/sh
# Runs at every boot of a rented machine, as root, by cloud-init: the guard first, then the runs that the
# last shutdown interrupted. It needs neither network nor client.
#
# It stands in var/lib/cloud/scripts/per-boot/, its parameters and the agent in var/lib/cloudrun/:
#   AGENT       the agent's file name
#   LOGIN       the user to whom the runs belong; LOGIN_HOME is the home folder where that user is unknown
#   INTERPRETERS     interpreters to try; one of 3.5 or newer will do
#   LIMIT_S     without any the machine ends itself after so many seconds; 0: never
HERE=${0%/*}/../../../cloudrun
# shellcheck source=/dev/null
. "$HERE/boot.env"
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
exec >>"$HERE/boot.log" 2>&1 </dev/null

find_python() {
  for PYTHON in $INTERPRETERS; do
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 5))' 2>/dev/null && return 0
  done
  return 1
}

# Python drops the rights itself: su would open a login session, whose end may take the guard with it.
start() {
  exec "$PYTHON" -I -S -c '
import os, pwd, sys
name, home = sys.argv[1:3]
try:
    user = pwd.getpwnam(name)
except KeyError:
    user = None
if os.getuid() == 0 and user:
    os.initgroups(name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ.update(HOME=user.pw_dir, USER=name, LOGNAME=name)
os.environ.setdefault("HOME", home)
os.execv(sys.executable, [sys.executable, "-I", "-S"] + sys.argv[3:])
' "$LOGIN" "$LOGIN_HOME" "$HERE/$AGENT" boot --policy "$HERE/policy.json"
}

find_python && start

# A step that makes the machine ready may bring one.
(
  LEFT=$LIMIT_S
  until find_python; do
    sleep 10
    LEFT=$((LEFT - 10))
    [ "$LIMIT_S" -eq 0 ] || [ "$LEFT" -gt 0 ] || exec shutdown -h now
  done
  start
) &
