#!/bin/sh
# Builds and installs what bench.py needs, into build/bench-tools, and runs it; results go to
# build/bench.json. Where the npm packages cannot be had, llama.cpp is left out.
# usage: bench/run.sh [options of bench.py]
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/build/bench-tools
mkdir -p "$tools"
python=python3
if ! python3 -c 'import gguf, numpy, onnx, onnxruntime as o; assert o.__version__ == "1.31.1"' 2>/dev/null; then
    python=$tools/venv/bin/python3
    if ! cmp -s bench/requirements.txt "$tools/requirements.txt"; then
        echo "installing into build/bench-tools with pip: $(grep -v '^#' bench/requirements.txt | tr '\n' ' ')" >&2
        python3 -m venv "$tools/venv"
        "$tools/venv/bin/pip" install -q --disable-pip-version-check -r bench/requirements.txt
        cp bench/requirements.txt "$tools/"
    fi
fi
if ! cmp -s bench/package.json "$tools/package.json" && command -v npm >/dev/null 2>&1; then
    echo "installing into build/bench-tools with npm: node-llama-cpp" >&2
    cp bench/package.json "$tools/"
    npm install --prefix "$tools" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error >&2 || rm "$tools/package.json"
fi
packages=
[ ! -d "$tools/node_modules/@node-llama-cpp/linux-x64" ] || packages=$tools
cmake --preset release -DDIBIT_BENCH=ON >/dev/null
cmake --build build/release -j "$(nproc)" >/dev/null
exec "$python" bench/bench.py --packages "$packages" "$@"
