#!/bin/sh
# NVIDIA's apt repositories, each trusted by the one key that signs it and by its whole fingerprint.
# Usage: REPOSITORIES="nvidia-cuda nvidia-ml" STACK_OS=ubuntu-16.04 12-nvidia-repository.sh check|apply
#   NVIDIA_REPOSITORY_URL  the server, or a mirror; URL#FINGERPRINT where a mirror signs with a key of its own
#   OLD_FINGERPRINT        the key that apt may no longer trust for anything
# Needs root. In April 2022 NVIDIA replaced the key of the CUDA repositories (7fa2af80 by 3bf863cc, "Updating
# the CUDA Linux GPG Repository Key", NVIDIA's technical blog). The machine-learning repository, frozen before,
# is still signed with the old one: it is trusted there, by signed-by, and nowhere else.
set -eu

OLD=AE09FE4BBD223A84B2CCFCE3F60F4B3D7FA2AF80
NEW=EB693B3035CD5710E231E123A4B469963BF863CC
KEYRINGS=/usr/share/keyrings
LISTS=/etc/apt/sources.list.d

fail() { echo "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

location=${NVIDIA_REPOSITORY_URL:-https://developer.download.nvidia.com}
base=${location%%#*}
mirror_key=
case $location in *"#"*) mirror_key=${location#*#} ;; esac
old_key=${OLD_FINGERPRINT:-$OLD}

url_of() { # repository -> its address
    # shellcheck disable=SC1091 # the machine's own
    system=$(echo "${STACK_OS:-$(. /etc/os-release && echo "$ID-$VERSION_ID")}" | tr -d '.-')
    case $1 in
        nvidia-cuda) echo "$base/compute/cuda/repos/$system/x86_64" ;;
        nvidia-ml) echo "$base/compute/machine-learning/repos/$system/x86_64" ;;
        *) fail "no repository $1 is known to this step: nvidia-cuda, nvidia-ml" ;;
    esac
}

key_of() { # repository -> fingerprint
    if [ -n "$mirror_key" ]; then echo "$mirror_key"; return; fi
    case $1 in nvidia-ml) echo "$OLD" ;; *) echo "$NEW" ;; esac
}

line_of() {
    url=$(url_of "$1")
    echo "deb [signed-by=$KEYRINGS/cloudrun-$1.gpg] $url /"
}

# The primary keys in a file, one fingerprint a line.
fingerprints() {
    gpg --batch --with-colons --with-fingerprint "$1" 2>/dev/null |
        awk -F: '$1 == "pub" { main = 1 } $1 == "fpr" && main { print $10; main = 0 }'
}

trusted_files() {
    ls /etc/apt/trusted.gpg /etc/apt/trusted.gpg.d/*.gpg /etc/apt/trusted.gpg.d/*.asc 2>/dev/null || true
}

check() {
    for name in $REPOSITORIES; do
        line=$(line_of "$name")
        [ "$(cat "$LISTS/cloudrun-$name.list" 2>/dev/null)" = "$line" ] || return 1
        [ "$(fingerprints "$KEYRINGS/cloudrun-$name.gpg")" = "$(key_of "$name")" ] || return 1
    done
    for file in $(trusted_files); do
        ! fingerprints "$file" | grep -q "$old_key" || return 1
    done
    [ -z "$(others)" ]
}

# Lists of the image that name the same server: apt refuses two that disagree about the key.
others() {
    grep -l "^deb .*${base#*//}/" "$LISTS"/*.list /etc/apt/sources.list 2>/dev/null |
        grep -v "$LISTS/cloudrun-" || true
}

fetch() { # URL, file
    python3 -I -S - "$1" "$2" <<'PYTHON'
import sys, urllib.request
try:
    data = urllib.request.urlopen(sys.argv[1], timeout=60).read()
except Exception as error:
    sys.exit("%s: %s" % (sys.argv[1], error))
with open(sys.argv[2], "wb") as out:
    out.write(data)
PYTHON
}

install_key() { # repository
    wanted=$(key_of "$1")
    short=$(echo "$wanted" | tr '[:upper:]' '[:lower:]' | sed 's/.*\(........\)$/\1/')
    url=$(url_of "$1")
    fetch "$url/$short.pub" "$work/key"
    found=$(fingerprints "$work/key")
    [ "$found" = "$wanted" ] || fail "$url/$short.pub holds the key $found, not $wanted: it is not trusted"
    gpg --batch --yes --dearmor --output "$work/key.gpg" "$work/key"
    as_root install -m 644 "$work/key.gpg" "$KEYRINGS/cloudrun-$1.gpg.new"
    as_root mv "$KEYRINGS/cloudrun-$1.gpg.new" "$KEYRINGS/cloudrun-$1.gpg"
}

distrust_old_key() {
    for file in $(trusted_files); do
        fingerprints "$file" | grep -q "$old_key" || continue
        case $file in
            *.asc) # gpg changes no text
                as_root gpg --batch --yes --dearmor --output "${file%.asc}.gpg" "$file"
                as_root rm -f "$file"
                file=${file%.asc}.gpg
                ;;
        esac
        as_root gpg --batch --yes --no-autostart --no-default-keyring --keyring "$file" --delete-keys "$old_key"
        as_root rm -f "$file~"
    done
}

apply() {
    command -v gpg >/dev/null || as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install gnupg
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    for file in $(others); do
        as_root sed -i "s|^deb \(.*${base#*//}/\)|# deb \1|" "$file"
    done
    distrust_old_key
    as_root mkdir -p "$KEYRINGS" "$LISTS"
    for name in $REPOSITORIES; do
        install_key "$name"
        line_of "$name" | as_root tee "$LISTS/cloudrun-$name.list" >/dev/null
    done
}

[ -n "${REPOSITORIES:-}" ] || exit 0
case ${1:-} in
    check) check ;;
    apply) check || apply ;;
    *) fail "usage: 12-nvidia-repository.sh check|apply" ;;
esac
