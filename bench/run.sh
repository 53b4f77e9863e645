#!/bin/sh
# Builds what the benchmarks need and runs them; results go to docs/BENCHMARKS.md and build/bench.json.
# Needs Python with onnxruntime, onnx and numpy. usage: bench/run.sh [options of bench.py]
set -eu
cd "$(dirname "$0")/.."
if ! python3 -c 'import onnxruntime, onnx, numpy' 2>/dev/null; then
    echo "installing into build/bench-venv with pip: onnxruntime onnx numpy"
    [ -e build/bench-venv/bin/pip ] || python3 -m venv build/bench-venv
    build/bench-venv/bin/pip install -q onnxruntime onnx numpy
    PATH=$PWD/build/bench-venv/bin:$PATH
fi
cmake --preset release -DDIBIT_BENCH=ON > /dev/null
cmake --build build/release -j "$(nproc)" > /dev/null
exec python3 bench/bench.py --markdown docs/BENCHMARKS.md "$@"
