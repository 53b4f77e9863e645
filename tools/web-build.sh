#!/bin/sh
# Builds the npm package in build/web: both binaries, the modules of web/src, their types. Prints the folder.
# usage: tools/web-build.sh
set -eu
cd "$(dirname "$0")/.."
jobs=$(nproc 2>/dev/null || echo 2)
modules=$(tools/node-env.sh)
out=$PWD/build/web
mkdir -p "$out/dist"
{
    for preset in wasm wasm-relaxed; do
        # Beside build/$preset, which has the tests and needs their libraries.
        cmake --preset "$preset" -B "build/web-$preset" -DDIBIT_TESTS=OFF -DDIBIT_LM=OFF
        cmake --build "build/web-$preset" -j "$jobs" --target dibit_web
    done
    cp build/web-wasm/web/dibit.wasm "$out/dist/dibit.wasm"
    cp build/web-wasm-relaxed/web/dibit.wasm "$out/dist/dibit-relaxed.wasm"
    NODE_PATH=$modules/node_modules node web/build.mjs "$out"
    "$modules/node_modules/.bin/tsc" -p web
    ln -sfn "$modules/node_modules" "$out/node_modules" # for what is loaded on demand: webgpu
} >&2
echo "$out"
