#!/bin/sh
# Runs the stages of the tests, cheapest first, and ends with "N passed, N failed, N skipped".
# usage: tools/run-tests.sh [STAGE...]     default: $default; all there are: $all
#   DIBIT_ORACLE=DIR   also checks the models in DIR/cases
#   DIBIT_FULL=1       whole products of parameters instead of a seeded choice
# Logs are in build/logs. Exit 0 only when nothing failed.
set -u
cd "$(dirname "$0")/.."
jobs=$(nproc 2>/dev/null || echo 2)
logs=$PWD/build/logs
CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja} # of new build folders: it finds out sooner than make that all is built
export CMAKE_GENERATOR
mkdir -p "$logs"
default="native webgpu tint oracle conformance asan wasm web tsan aarch64 mutants"
all="$default oracle_extra coverage"
stages=${*:-$default}

# ---- counting ---------------------------------------------------------------------------------

# Sums the results in a log: cmocka's summaries and lines "N passed, N failed, N skipped"; a ctest entry
# with neither counts as one, and one that failed without saying how many is one failure.
count() {
    awk '
    /^Output:$/ { in_test = 1; seen = 0; bad = 0 }
    match($0, /\[  PASSED  \] [0-9]+/) { split($0, w, /\] /); p += w[2] + 0; seen = 1 }
    match($0, /\[  FAILED  \] [0-9]+ test/) { split($0, w, /\] /); f += w[2] + 0; seen = bad = 1 }
    match($0, /\[  SKIPPED \] [0-9]+ test/) { split($0, w, /\] /); s += w[2] + 0; seen = 1 }
    /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ {
        p += $1; f += $3; s += $5; seen = 1; if ($3 > 0) bad = 1
    }
    /^Test Passed\.$/ { if (in_test && !seen) p++; in_test = 0 }
    /^Test Failed\.$|^Test Timeout\.$|^Test Not Run\.$|^Unable to find executable/ { if (!bad) f++; bad = 1; in_test = 0 }
    END { printf "%d %d %d\n", p, f, s }' "$1"
}

total_p=0 total_f=0 total_s=0
# Runs a stage function: it writes its results to $results, and returns not 0 when it broke.
stage() {
    name=$1 log=$logs/$1.log results=$logs/$1.results
    : > "$results"
    start=$(date +%s)
    "stage_$name" > "$log" 2>&1
    status=$?
    set -- $(count "$results")
    p=$1 f=$2 s=$3
    if [ $status != 0 ] && [ "$f" = 0 ]; then f=1; fi
    printf '%-12s %6d passed, %3d failed, %3d skipped  %5d s\n' "$name" "$p" "$f" "$s" \
        $(($(date +%s) - start))
    if [ "$f" != 0 ]; then
        echo "---- the end of $log"
        tail -n 60 "$log"
        echo "----"
    fi
    total_p=$((total_p + p)) total_f=$((total_f + f)) total_s=$((total_s + s))
}

# ---- stages -----------------------------------------------------------------------------------

build() { cmake --preset "$1" && cmake --build "build/$1" -j "$jobs"; }
run_ctest() { # preset, further options
    preset=$1; shift
    rm -f "build/$preset/Testing/Temporary/LastTest.log"
    ctest --test-dir "build/$preset" --output-on-failure -j "$jobs" "$@"
    status=$?
    cat "build/$preset/Testing/Temporary/LastTest.log" >> "$results"
    return $status
}

# A command whose last line is "N passed, N failed, N skipped".
run_script() {
    "$@" > "$logs/script.out" 2>&1
    status=$?
    cat "$logs/script.out"
    tail -n 1 "$logs/script.out" >> "$results"
    return $status
}

skip() {
    echo "skipped: $1"
    echo "0 passed, 0 failed, 1 skipped" >> "$results"
}

stage_native() { build test && run_ctest test -LE gpu; }

# Whatever has a GPU side, through wgpu-native; on Mesa's software driver where there is no GPU.
stage_webgpu() {
    library=$(tools/webgpu-lib.sh) || {
        skip "wgpu-native, which the Python package wgpu brings, cannot be had"
        return 0
    }
    build test && run_ctest test -L gpu &&
        check_both_ways --strict --device webgpu --webgpu-lib "$library" tests/data/cases
}

# Every variant of every shader under the browsers' other compiler.
stage_tint() {
    modules=$(tools/node-env.sh) || {
        skip "Tint, which the npm package webgpu brings, cannot be had"
        return 0
    }
    variants=$PWD/build/test/shader_variants script=$PWD/tests/webgpu/tint.mjs
    rm -rf "$variants"
    mkdir -p "$variants"
    build test && build/test/tests/write_shader_variants "$variants" &&
        (cd "$modules" && run_script node "$script" "$variants")
}

# The npm package: built for WebAssembly, and run in Node, on its CPU and on a GPU through Dawn.
stage_web() {
    tools/node-env.sh > /dev/null && command -v clang-19 > /dev/null || {
        skip "clang 19, or packages of web/package.json, cannot be had"
        return 0
    }
    # Native code judges greedy text.
    cmake --preset test && cmake --build build/test -j "$jobs" --target test_greedy &&
        tools/web-build.sh && run_script node web/tests/run.mjs
}

# From files, and with states kept in the session.
check_both_ways() {
    run_script build/test/dibit check "$@"
    from_files=$?
    run_script build/test/dibit check --chain "$@" && [ $from_files = 0 ]
}

# Reference models beside the repository's own; with DIBIT_FULL=1 also on a device, with and without fusion.
stage_oracle() {
    [ -n "${DIBIT_ORACLE:-}" ] || { skip "DIBIT_ORACLE is not set"; return 0; }
    build test && check_both_ways "$DIBIT_ORACLE/cases" || return 1
    if [ "${DIBIT_FULL:-}" = 1 ]; then
        library=$(tools/webgpu-lib.sh) && for options in "" --no-fusion; do
            check_both_ways $options --strict --device webgpu --webgpu-lib "$library" "$DIBIT_ORACLE/cases" || return 1
        done
    fi
}

# The same models on longer, ragged and padded inputs, which ONNX Runtime answers here.
stage_oracle_extra() {
    [ -n "${DIBIT_ORACLE:-}" ] || { skip "DIBIT_ORACLE is not set"; return 0; }
    python3 -c 'import onnx, onnxruntime' || { skip "Python has no onnxruntime"; return 0; }
    rm -rf build/oracle-extra
    build test && python3 tools/oracle_extra.py "$DIBIT_ORACLE/cases" build/oracle-extra &&
        check_both_ways build/oracle-extra
}

# ONNX's own node tests, made by the onnx package: on the CPU, and on the device of a WebGPU library.
stage_conformance() {
    python=$(tools/python-env.sh) || return 1
    library=${DIBIT_WEBGPU_LIB:-$PWD/build/webgpu/libwgpu_native.so}
    build test || return 1
    PATH="$python:$PATH" run_script tests/conformance/run.sh build/test
    on_cpu=$?
    PATH="$python:$PATH" run_script tests/conformance/run.sh build/test "$library" && return $on_cpu
}

# Each classic mistake, put into the code, has to turn its named test red.
stage_mutants() { run_script tests/mutants/run.sh; }

# On a software device the sanitizers make shaders' tests slow: the quick run takes the HAL's and some ops'.
stage_asan() {
    if [ "${DIBIT_FULL:-}" = 1 ]; then
        build asan && run_ctest asan
    else
        build asan && run_ctest asan -LE 'gpu|slow' &&
            run_ctest asan -R '^gpu_test_(hal|cast|norm)$'
    fi
}

# On another machine, with DIBIT_FULL=1 all tests but some: cross PRESET LABEL EXCLUDED; else those of the label.
cross() {
    if [ "${DIBIT_FULL:-}" = 1 ]; then
        build "$1" && run_ctest "$1" -LE "$3"
    else
        cmake --preset "$1" && cmake --build "build/$1" -j "$jobs" --target "$2" && run_ctest "$1" -L "$2"
    fi
}

# Both WebAssembly builds, in Node.
stage_wasm() {
    command -v clang-19 >/dev/null && command -v node >/dev/null || {
        skip "clang 19 or node is not there"
        return 0
    }
    tools/wasm-sysroot.sh && cross wasm cross 'gpu|host' && cross wasm-relaxed kernels 'gpu|host'
}
stage_tsan() {
    cmake --preset tsan && cmake --build build/tsan -j "$jobs" --target test_base dibit_cli && run_ctest tsan -L threads
}
stage_aarch64() { tools/arm64-sysroot.sh && cross aarch64 kernels host; }

stage_coverage() {
    build coverage && run_ctest coverage || return 1
    gcovr --root . --filter 'src/' --exclude '.*/test_.*' build/coverage --gcov-ignore-parse-errors \
        --print-summary | tee build/coverage.txt
}

for name in $stages; do
    case " $all " in
    *" $name "*) stage "$name" ;;
    *) echo "there is no stage '$name' (stages: $all)" >&2; exit 2 ;;
    esac
done
echo "$total_p passed, $total_f failed, $total_s skipped" | tee "$logs/summary"
[ "$total_f" = 0 ]
