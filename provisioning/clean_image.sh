#!/bin/sh
# Makes a machine's disk fit to boot others: nothing of this one stays on it, what was installed does.
#
# As root: sh clean_image.sh LOGIN_HOME. Prints "used-gb N", what is in use of the disk then. Nobody gets in
# over SSH any more; the guard goes on watching until the machine ends. Machines that boot from the disk find
# a script for their first boot, which removes that guard's record before their own guard begins.
set -eu
HOME_OF_LOGIN=$1
# A rehearsal's machine without root has its system in its home; nothing outside of that is its own.
SYSTEM=
[ ! -f "$HOME_OF_LOGIN/.system/var/lib/cloudrun/policy.json" ] || SYSTEM=$HOME_OF_LOGIN/.system
if [ ! -f "$SYSTEM/var/lib/cloudrun/policy.json" ]; then
  echo "this is no machine that cloudrun has launched" >&2
  exit 1
fi

first_boot() {
  script=$SYSTEM/var/lib/cloud/scripts/per-boot/cloudrun-image.sh # sorts before cloudrun.sh
  home=$HOME_OF_LOGIN
  # shellcheck disable=SC2016
  [ -z "$SYSTEM" ] || home='$HOME' # every machine's own there
  mkdir -p "${script%/*}"
  rm -f "${script%/*}/cloudrun.sh" # a launch of ours brings its own; who launches otherwise wants no guard
  cat >"$script" <<SCRIPT
#!/bin/sh
rm -f "$home/.cloudrun/guard.json" "$home/.cloudrun/guard.lock" "\$0"
SCRIPT
  chmod 0755 "$script"
}

# Runs, code, data and the agent itself; not the guard, which reads its policy again and again.
agent() {
  find "$HOME_OF_LOGIN/.cloudrun" -mindepth 1 -maxdepth 1 ! -name 'guard.*' -exec rm -rf {} +
}

people() {
  for home in "$HOME_OF_LOGIN" "$SYSTEM/root"; do
    rm -f "$home/.bash_history" "$home/.python_history" "$home/.lesshst" "$home/.viminfo" \
      "$home/.wget-hsts" "$home/.ssh/authorized_keys" "$home/.ssh/known_hosts"
    rm -rf "$home/.cache"
  done
}

identity() {
  rm -f "$SYSTEM"/etc/ssh/ssh_host_* "$SYSTEM/var/lib/dbus/machine-id" \
    "$SYSTEM"/var/lib/dhcp/*.leases "$SYSTEM/etc/udev/rules.d/70-persistent-net.rules"
  [ ! -f "$SYSTEM/etc/machine-id" ] || : >"$SYSTEM/etc/machine-id"
}

# Azure's own agent forgets this machine's certificates and orders, as Microsoft asks for before a disk is
# kept. The login user stays: cloud-init gives it the next machine's key.
azure_agent() {
  if [ -z "$SYSTEM" ] && command -v waagent >/dev/null; then waagent -force -deprovision >/dev/null; fi
  # What older ones leave there: the boot payload with its keys.
  [ ! -d "$SYSTEM/var/lib/waagent" ] || find "$SYSTEM/var/lib/waagent" -mindepth 1 -delete
}

# What `cloud-init clean` removes, by hand: the first versions of it have no such command.
cloud_init() {
  [ ! -d "$SYSTEM/var/lib/cloud" ] || find "$SYSTEM/var/lib/cloud" -mindepth 1 -maxdepth 1 \
    ! -name seed ! -name scripts -exec rm -rf {} +
}

caches_and_logs() {
  rm -rf "$SYSTEM"/var/cache/apt/archives/*.deb "$SYSTEM"/var/log/journal/*
  find "$SYSTEM/var/log" -type f \( -name '*.gz' -o -name '*.[0-9]' \) -delete
  find "$SYSTEM/var/log" -type f -size +0 -exec sh -c 'for file; do : >"$file"; done' sh {} +
}

first_boot
agent
caches_and_logs
identity
azure_agent
cloud_init
people
sync
echo "used-gb $(df -P -k "$HOME_OF_LOGIN" | awk 'END { print int($3 / 1048576) + 1 }')"
