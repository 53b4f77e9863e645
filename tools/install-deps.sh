#!/bin/sh
# Installs what a build, the page (`web`) or the tests need on a Debian-like machine, and says so first.
# usage: tools/install-deps.sh build|web|test
# DIBIT_NO_INSTALL=1: only lists what is missing and fails. Elsewhere: checks and lists.
set -eu
want=${1:-build}

# "package command-or-pkg-config-module": a package is missing when its witness is.
list_build='gcc cc
make make
cmake cmake
pkg-config pkg-config
libjansson-dev jansson
libpcre2-dev libpcre2-8
libutf8proc-dev libutf8proc
libedit-dev libedit'
list_web='make make
cmake cmake
clang-19 clang-19
lld-19 wasm-ld-19
llvm-19 llvm-ar-19
wasi-libc /wasi-libc
libclang-rt-19-dev-wasm32 /wasm-builtins
nodejs node
npm npm'
list_test='g++ c++
libcmocka-dev cmocka
gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc
g++-aarch64-linux-gnu aarch64-linux-gnu-g++
qemu-user qemu-aarch64
python3 python3
python3-venv /venv
gcovr gcovr
mesa-vulkan-drivers /lavapipe
git git
chromium chromium
ninja-build ninja
patch patch'

case $want in
build) list=$list_build ;;
web) list=$list_web ;;
test) list=$(printf '%s\n' "$list_build" "$list_web" "$list_test" | awk '!seen[$1]++') ;;
*) echo "usage: $0 build|web|test" >&2; exit 2 ;;
esac

missing() {
    printf '%s\n' "$list" | while read -r package witness; do
        case $witness in
        /lavapipe) ls /usr/share/vulkan/icd.d/lvp_icd*.json >/dev/null 2>&1 && continue ;;
        /wasi-libc) [ -e /usr/lib/wasm32-wasi/libc.a ] && continue ;;
        /wasm-builtins) [ -e /usr/lib/llvm-19/lib/clang/19/lib/wasi/libclang_rt.builtins-wasm32.a ] && continue ;;
        /venv) python3 -c 'import ensurepip, venv' 2>/dev/null && continue ;;
        jansson | lib* | cmocka) pkg-config --exists "$witness" 2>/dev/null && continue ;;
        *) command -v "$witness" >/dev/null 2>&1 && continue ;;
        esac
        printf '%s ' "$package"
    done
}

# Its tests are skipped without it; not every Debian-like system has it.
firefox() {
    [ "$want" = test ] && [ "${DIBIT_NO_INSTALL:-0}" != 1 ] || return 0
    command -v firefox-esr >/dev/null 2>&1 || command -v firefox >/dev/null 2>&1 || install_packages firefox-esr || true
}

install_packages() {
    command -v apt-get >/dev/null 2>&1 || return 1
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing with ${sudo:+sudo }apt-get: $* (DIBIT_NO_INSTALL=1 only lists them)"
    $sudo env DEBIAN_FRONTEND=noninteractive sh -c "apt-get -qq update && apt-get -qq install -y --no-install-recommends $*" >/dev/null
}

need=$(missing)
if [ -z "$need" ]; then
    firefox
    exit 0
fi
if [ "${DIBIT_NO_INSTALL:-0}" = 1 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing (Debian's names): $need" >&2
    exit 1
fi
install_packages "$need" libc6-dev
firefox
need=$(missing)
[ -z "$need" ] || { echo "still missing: $need" >&2; exit 1; }
