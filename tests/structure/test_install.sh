#!/bin/sh
# Test: an installed Dibit is found by pkg-config and by CMake, and the example in C runs on it.
# usage: test_install.sh BUILD_DIR SOURCE_DIR CC
set -eu
build=$1 source=$2 cc=$3
work=$build/tests/install
rm -rf "$work"
mkdir -p "$work"
cmake --install "$build" --prefix "$work/prefix" > "$work/log"
PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name dibit.pc)")
library_path=$(dirname "$PKG_CONFIG_PATH")
export PKG_CONFIG_PATH
passed=0 failed=0

# name, program
expect_answer() {
    LD_LIBRARY_PATH=$library_path "$2" "$source/examples/c/linear.onnx" 1 2 3 4 > "$work/out" || true
    if [ "$(cat "$work/out")" = "$(printf '30.5\n-7.75')" ]; then passed=$((passed + 1)); else
        echo "FAILED: $1 printed '$(cat "$work/out")'"
        failed=$((failed + 1))
    fi
}

# shellcheck disable=SC2046
"$cc" $(pkg-config --cflags dibit) "$source/examples/c/linear.c" $(pkg-config --libs dibit) -o "$work/linear"
expect_answer "the example through pkg-config" "$work/linear"

# shellcheck disable=SC2046
"$cc" $(pkg-config --cflags dibit) "$source/examples/c/linear.c" "$library_path/libdibit.a" -pthread -lm \
    -o "$work/linear_static"
expect_answer "the example with the static library" "$work/linear_static"

cmake -S "$source/examples/c" -B "$work/example" -DCMAKE_PREFIX_PATH="$work/prefix" >> "$work/log"
cmake --build "$work/example" >> "$work/log"
expect_answer "the example through CMake" "$work/example/linear"

if [ "$("$work/prefix/bin/dibit" --version)" = "dibit $(pkg-config --modversion dibit)" ]; then
    passed=$((passed + 1))
else
    echo "FAILED: the installed command's version is not the library's"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
