#!/bin/sh
# Makes ONNX's node tests with the installed onnx package, once for its version, and runs them.
# usage: tests/conformance/run.sh BUILD_FOLDER [WEBGPU_LIBRARY]
# With a library they run on its device. The last line is "N passed, N failed, N skipped".
set -u
here=$(dirname "$0")
build=$1
if ! version=$(python3 -c 'import onnx; print(onnx.__version__)' 2>/dev/null); then
    echo "skipped: Python's onnx package is not installed"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
cases=$build/onnx-$version
if [ ! -f "$cases/complete" ]; then
    rm -rf "$cases"
    python3 "$here/generate.py" "$cases" >"$build/onnx-generate.log" 2>&1 || {
        tail -n 20 "$build/onnx-generate.log"
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    }
    touch "$cases/complete"
fi
[ $# -lt 2 ] || [ -f "$2" ] || {
    echo "skipped: there is no WebGPU library $2"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
shift
exec "$build/tests/conformance" "$cases/node" "$here/known_failures.txt" "$@"
