#!/bin/sh
# Builds the libraries of the wasm test build (cmocka, jansson, PCRE2, utf8proc) from the sources of
# Debian's packages, into build/wasm-sysroot: nothing on the system changes. Does nothing when they are there.
set -eu
cd "$(dirname "$0")/.."
packages="cmocka jansson pcre2 utf8proc"
root=$PWD/build/wasm-sysroot
[ -e "$root/complete" ] && [ "$root/complete" -nt "$0" ] && exit 0
if [ "${DIBIT_NO_INSTALL:-0}" = 1 ]; then
    echo "missing in build/wasm-sysroot, from Debian's sources:" $packages >&2
    exit 1
fi
echo "fetching sources and building into build/wasm-sysroot:" $packages
rm -rf "$root"
work=$root/work
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/src"
: > "$work/status"
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
echo "deb-src http://deb.debian.org/debian $release main" > "$work/sources.list"
apt() {
    apt-get -qq -o APT::Sandbox::User= -o Dir::Etc::sourcelist="$work/sources.list" \
        -o Dir::Etc::sourceparts=- -o Dir::State="$work/state" -o Dir::State::status="$work/status" \
        -o Dir::Cache="$work/cache" "$@"
}
apt update
(cd "$work/src" && apt source --download-only $packages)
for archive in "$work"/src/*.orig.tar.[gx]z; do tar -xf "$archive" -C "$work/src"; done

# The include folder has setjmp.h, which wasi-libc lacks.
flags="-isystem $PWD/tests/wasm/include -mllvm -wasm-enable-sjlj -D_WASI_EMULATED_SIGNAL -D_UINTPTR_T_DEFINED -w"
library() { # folder, options
    source=$(echo "$work"/src/"$1"-*)
    build=$work/build-$1
    shift
    cmake -S "$source" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/wasm32-wasi.cmake" -Wno-dev \
        -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS="--sysroot=/usr $flags" -DBUILD_SHARED_LIBS=OFF \
        -DCMAKE_INSTALL_PREFIX="$root" "$@" &&
        cmake --build "$build" -j "$(nproc)" && cmake --install "$build"
}
{
    library cmocka -DWITH_EXAMPLES=OFF &&
    library jansson -DJANSSON_BUILD_DOCS=OFF -DJANSSON_EXAMPLES=OFF -DJANSSON_WITHOUT_TESTS=ON &&
    library pcre2 -DPCRE2_BUILD_TESTS=OFF -DPCRE2_BUILD_PCRE2GREP=OFF -DPCRE2_SUPPORT_LIBBZ2=OFF \
        -DPCRE2_SUPPORT_LIBZ=OFF -DPCRE2_SUPPORT_LIBREADLINE=OFF -DPCRE2_SUPPORT_LIBEDIT=OFF &&
    library utf8proc
} > "$root/log" 2>&1 || { tail -n 40 "$root/log" >&2; exit 1; }
rm -rf "$work"
touch "$root/complete"
