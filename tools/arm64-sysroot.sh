#!/bin/sh
# Fetches the arm64 libraries of the aarch64 test build with apt, into build/arm64-sysroot: nothing on
# the system changes. Does nothing when they are there.
set -eu
cd "$(dirname "$0")/.."
packages="libcmocka-dev libcmocka0 libjansson-dev libjansson4 libpcre2-dev libpcre2-8-0
          libutf8proc-dev libutf8proc2 libedit-dev libedit2 libbsd0 libbsd-dev libmd0 libmd-dev
          libtinfo6 libncurses6 libncurses-dev"
root=$PWD/build/arm64-sysroot
[ -e "$root/complete" ] && exit 0
if [ "${DIBIT_NO_INSTALL:-0}" = 1 ]; then
    echo "missing in build/arm64-sysroot:" $packages >&2
    exit 1
fi
echo "fetching arm64 packages into build/arm64-sysroot:" $packages
rm -rf "$root"
mkdir -p "$root/apt/state/lists/partial" "$root/apt/cache/archives/partial" "$root/apt/debs"
: > "$root/apt/status"
apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User= \
        -o Dir::State="$root/apt/state" -o Dir::State::status="$root/apt/status" \
        -o Dir::Cache="$root/apt/cache" "$@"
}
apt update
(cd "$root/apt/debs" && apt download $packages)
for deb in "$root"/apt/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
# Debian 12 has libtinfo and libbsd in /lib: one folder is simpler for the loader.
if [ -d "$root/lib/aarch64-linux-gnu" ] && [ ! -L "$root/lib" ]; then
    cp -a "$root"/lib/aarch64-linux-gnu/. "$root/usr/lib/aarch64-linux-gnu/"
fi
rm -rf "$root/apt"
touch "$root/complete"
