#!/bin/sh
# Runs a test on the WebGPU device of a library. usage: run.sh LIBRARY TEST [ARGUMENT...]
# Exits 77, which ctest counts as skipped, when there is no such library.
if [ ! -f "$1" ]; then
    echo "skipped: there is no WebGPU library $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 77
fi
library=$1
shift
LSAN_OPTIONS=suppressions=$(dirname "$0")/lsan.supp:print_suppressions=0
ASAN_OPTIONS=allocator_may_return_null=1 # a driver that gets no memory says so
export LSAN_OPTIONS ASAN_OPTIONS
XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp} DIBIT_TEST_DEVICE=webgpu DIBIT_WEBGPU_LIB=$library exec "$@"
