#!/bin/sh
# Builds the fuzzers with clang and runs one after the other; stops at the first finding.
# usage: tools/fuzz.sh [RUNS [TARGET...]]     default: 1000000 runs of each target
# Inputs that reach new code gather in build/fuzz/corpus; a finding lies in build/fuzz/found-*.
set -eu
cd "$(dirname "$0")/.."
runs=${1:-1000000}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- onnx session tensor_file tokenizer
CC=${CC:-clang-19} CXX=${CXX:-clang++-19} cmake --preset fuzz > /dev/null
for target; do
    cmake --build build/fuzz -j "$(nproc)" --target "fuzz_$target" > /dev/null
    seeds=tests/fuzz/corpus/$target
    [ -d "$seeds" ] || seeds=tests/fuzz/corpus/onnx
    mkdir -p "build/fuzz/corpus/$target"
    echo "fuzz_$target: $runs runs"
    ASAN_OPTIONS=malloc_context_size=4:quarantine_size_mb=16 UBSAN_OPTIONS=print_stacktrace=1 \
        "build/fuzz/tests/fuzz/fuzz_$target" -runs="$runs" -max_len=2048 -timeout=20 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix=build/fuzz/found- "build/fuzz/corpus/$target" "$seeds"
done
