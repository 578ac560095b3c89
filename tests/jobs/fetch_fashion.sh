#!/bin/sh
# Put Fashion-MNIST (60,000 and 10,000 images, 4 gzipped idx files) into a cache folder and print that folder's name.
# Usage: fetch_fashion.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/cloudrun-tests
# The files come with Debian's package dataset-fashion-mnist (Expat licence). Does nothing when they are there.
set -eu

package=dataset-fashion-mnist
package_sha256=39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0 # 0.0~git20200523.55506a9-1
cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cloudrun-tests}
sums='b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7  train-images-idx3-ubyte.gz
0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056  train-labels-idx1-ubyte.gz
cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa  t10k-images-idx3-ubyte.gz
8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05  t10k-labels-idx1-ubyte.gz'

whole() { (cd "$1" 2>/dev/null && echo "$sums" | sha256sum --check --status 2>/dev/null); }

if ! whole "$cache/fashion"; then
    command -v dpkg >/dev/null || { echo "dpkg is not installed" >&2; exit 3; }
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/fetching.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    (cd "$work" && apt-get download --quiet=2 "$package" >/dev/null 2>&1) || { echo "apt-get cannot fetch $package" >&2; exit 3; }
    echo "$package_sha256  $(echo "$work/$package"_*.deb)" | sha256sum --check --status || { echo "$package is not the pinned one" >&2; exit 1; }
    dpkg -x "$work/$package"_*.deb "$work/files"
    whole "$work/files/usr/share/datasets/fashion-mnist" || { echo "the files of $package are not the pinned ones" >&2; exit 1; }
    rm -rf "$cache/fashion"
    mv "$work/files/usr/share/datasets/fashion-mnist" "$cache/fashion"
fi
echo "$cache"
