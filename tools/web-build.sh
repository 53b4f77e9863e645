#!/bin/sh
# Builds the npm package in build/web: both binaries, the modules of web/src, their types; and the page in build/page.
# Prints the package's folder.
# usage: tools/web-build.sh
set -eu
cd "$(dirname "$0")/.."
jobs=$(nproc 2>/dev/null || echo 2)
modules=$(tools/node-env.sh)
out=$PWD/build/web
mkdir -p "$out/dist"
{
    for preset in wasm wasm-relaxed; do
        tree=build/$preset # of the tests, if it is there; one without them needs fewer libraries
        if [ ! -e "$tree/CMakeCache.txt" ]; then
            tree=build/web-$preset
            cmake --preset "$preset" -B "$tree" -DDIBIT_TESTS=OFF -DDIBIT_LM=OFF
        fi
        cmake --build "$tree" -j "$jobs" --target dibit_web
        cp "$tree/web/dibit.wasm" "$out/dist/dibit${preset#wasm}.wasm"
    done
    NODE_PATH=$modules/node_modules node web/build.mjs "$out"
    "$modules/node_modules/.bin/tsc" -p web
    NODE_PATH=$modules/node_modules node web/page/build.mjs
    "$modules/node_modules/.bin/tsc" -p web/page
    ln -sfn "$modules/node_modules" "$out/node_modules" # for what is loaded on demand: webgpu
} >&2
echo "$out"
