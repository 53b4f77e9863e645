#!/bin/sh
# Proves that the tests of MatMulNBits can fail: each patch beside this script puts one classic mistake
# into a copy of the tree, and the test that the patch names has to turn red. The unpatched copy has to
# be green, and every patch has to apply. A patch of shaders also says what `dibit diff` and `dibit trace`
# have to print; a session has to come to the right answer all the same, and to say which kernel it left out.
#
#     tests/mutants/run.sh [NAME...]        all patches, or those of these names (without .patch)
#
# The copy, its build and what else is needed are kept in build/mutants. Last line: N passed, N failed, N skipped.
#
# Every patch meets the unpatched build, kept in build/mutants/green, so that only what it changes is compiled, and
# nothing of one patch is left for the next. While one patch's test runs, from executables of its own, the next one
# is built.
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
work=${DIBIT_MUTANTS_DIR:-$source/build/mutants}
tests="test_matmul_nbits test_nbits_op test_verify"
run=$work/run # what is judged while another patch is built
dibit=$run/dibit
case=$source/tests/data/cases/llama.q2
floats=$source/tests/data/cases/x_hqq2_b32 # that ONNX Runtime computed with float activations
library=${DIBIT_WEBGPU_LIB:-$source/build/webgpu/libwgpu_native.so} # for shaders
passed=0 failed=0 skipped=0
ulimit -c 0 # a test that fails aborts

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}
fail() { # says why; is false
    echo "FAILED $1: $2"
    return 1
}
skip() {
    echo "SKIPPED $1: $2"
    skipped=$((skipped + 1))
}
# run_test NAME TEST: to its first failure; on the device, if the patch is of a shader.
run_test() {
    case $1 in
    *_wgsl) DIBIT_TEST_DEVICE=webgpu DIBIT_WEBGPU_LIB=$library timeout 300 "$run/$2" ;;
    *) CMOCKA_TEST_ABORT=1 timeout 300 stdbuf -oL "$run/$2" ;;
    esac >"$work/test.log" 2>&1
}
build() { ninja -C "$work/build" -j "${JOBS:-2}" "$@" >"$work/build.log" 2>&1; } # build TARGET...
keep() { # keep FROM TO, folders: TO becomes the same as FROM, times and all
    rm -rf "$2" && cp -a "$1" "$2"
}
# says NAME CODE REGEX ARGUMENTS...: a verb on the device ends so, and prints a line like that.
says() {
    name=$1 code=$2 regex=$3
    shift 3
    DIBIT_WEBGPU_LIB=$library timeout 300 "$dibit" "$@" --device webgpu >"$work/out.log" 2>&1
    got=$?
    if [ $got = "$code" ] && grep -Eq -- "$regex" "$work/out.log"; then return 0; fi
    fail "$name" "'dibit $*' ended with $got and not '$regex': $(tail -n 1 "$work/out.log")"
    return 1
}
# tools NAME PATCH: what the tools for debugging say of a mistake in shaders, and what a session makes of it.
tools() {
    head=$(sed '/^---/,$d' "$2")
    wrong=$(echo "$head" | sed -n 's/^trace: //p')
    made=$(echo "$head" | sed -n 's/^made: //p')
    model=$case saved=$work/saved float="--activations float"
    rm -rf "$saved"
    if [ "$1" = gate_wgsl ]; then # nothing is wrong, and nothing runs on the device
        says "$1" 0 'com.microsoft.MatMulNBits .*: 2 bits with zero points' info "$model" --steps &&
            says "$1" 0 'MatMulNBits .*; on the CPU: 2 bits with zero points' diff "$model" $float &&
            says "$1" 1 "$wrong" trace --bits 2 --index 0,0 $float --kernel matvec_float_m1_rows4_lanes32_plain &&
            says "$1" 0 '^[1-9] passed, 0 failed' check "$model" --strict
        return
    fi
    if [ -n "$made" ]; then
        model=$work/made.onnx
        "$dibit" trace $made --index 0,0 --save "$model" >/dev/null || return
    fi
    says "$1" 1 '^FIRST prompt: node [0-9]+, MatMulNBits by itself' diff "$model" $float --no-proof --save "$saved" &&
        element=$(sed -n "s/^  alone: .* \[\([0-9,]*\)\] is .*/\1/p" "$work/out.log") &&
        says "$1" 1 "^FIRST WRONG BIT: .*$wrong" trace "$saved" --index "$element" $float --no-proof &&
        says "$1" 0 '^1 passed' check "$saved" $float &&
        says "$1" 1 '^1 passed, 1 failed' check "$saved" $float --strict &&
        says "$1" 0 'is wrong on this device and is not used' info "$model" --steps $float || return
    says "$1" 0 'all within their bounds$' diff "$model" $float && says "$1" 0 '^[1-9] passed, 0 failed' check "$floats"
}

# Is every test green without a patch?
judge_green() {
    for test in $tests; do
        "$run/$test" >"$work/test.log" 2>&1 && continue
        tail -20 "$work/test.log"
        fail "$test" "red without a patch" || return
    done
}
# judge NAME: does the patch turn its test red, and do the tools say so?
judge() {
    if run_test "$1" "$test"; then
        fail "$1" "$test stays green"
    elif [ "$test" = test_verify ] && ! grep -q '^FAILED [a-z]' "$work/test.log"; then
        fail "$1" "$test names no kernel"
    elif [ "${1%_wgsl}" = "$1" ] || tools "$1" "$here/$1.patch"; then # else it has said why
        echo "ok $1: $test is red; $(grep -m1 -E '^matrix: [0-9]+ of|^FAIL |^FAILED [a-z]|by hand|no kernel|not supported' "$work/test.log" | cut -c1-160)"
    else
        return 1
    fi
}

# One judgement runs in the background, the first one is judge_green: begin COMMAND... takes the executables that are
# built; settle waits for it and counts it.
judging= green=unknown
begin() {
    rm -rf "$run"
    mkdir "$run" || exit 1
    for target in $targets; do
        case $target in
        dibit_cli) cp "$work/build/dibit" "$run/" ;;
        *) cp "$work/build/tests/$target" "$run/" ;;
        esac || exit 1
    done
    "$@" >"$work/judgement" &
    judging=$!
}
settle() {
    [ -n "$judging" ] || return 0
    wait "$judging"
    case $green$? in
    unknown0) green=yes ;;
    yes0) passed=$((passed + 1)) ;;
    *) failed=$((failed + 1)) ;;
    esac
    judging=
    cat "$work/judgement"
    [ $green = yes ] || finish
}

# Files that did not change keep their times, so that a second run builds little.
mkdir -p "$work/tree"
[ ! -d "$work/green" ] || keep "$work/green" "$work/build"
(cd "$source" && git ls-files -z --cached --others --exclude-standard -- CMakeLists.txt cmake src include tests cli tools \
    examples docs LICENSE README.md | xargs -0 ls -d 2>/dev/null | tar -cf - -T -) | tar -xf - -C "$work/tree" || {
    fail copy "cannot copy the tree"
    failed=1
    finish
}
targets="$tests dibit_cli"
cmake -S "$work/tree" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE='-O1 -DNDEBUG' \
    -DDIBIT_WERROR=OFF >"$work/build.log" 2>&1 && build $targets && keep "$work/build" "$work/green" || {
    tail -20 "$work/build.log"
    fail build "the unpatched tree does not build"
    failed=1
    finish
}
begin judge_green

case $(uname -m) in
x86_64 | amd64) avx2=$(grep -c -m1 -w avx2 /proc/cpuinfo) avx512=$(grep -m1 -w avx512_vnni /proc/cpuinfo | grep -c -w avx512vbmi)
    amx=$(grep -c -m1 -w amx_int8 /proc/cpuinfo) ;;
*) avx2=0 avx512=0 amx=0 ;;
esac
[ $# -gt 0 ] || set -- $(cd "$here" && ls ./*.patch | sed 's|^\./||; s|\.patch$||' | sort -t _ -k 2)
for name in "$@"; do
    patch="$here/$name.patch"
    case $name in
    *_avx2) [ "$avx2" != 0 ] || { skip "$name" "this machine has no AVX2"; continue; } ;;
    *_avx512) [ "$avx512" != 0 ] || { skip "$name" "this machine has no AVX512 with VNNI and VBMI"; continue; } ;;
    *_amx) [ "$amx" != 0 ] || { skip "$name" "this machine has no AMX"; continue; } ;;
    *_wgsl) [ -f "$library" ] || { skip "$name" "there is no WebGPU library $library"; continue; } ;;
    esac
    if ! patch -s -p1 -d "$work/tree" --dry-run <"$patch" >/dev/null 2>&1; then
        fail "$name" "the patch does not apply"
        failed=$((failed + 1))
        continue
    fi
    next=$(sed -n 's/^test: //p' "$patch")
    case $name in
    *_wgsl) targets="$next dibit_cli" ;;
    *) targets=$next ;;
    esac
    patch -s -p1 --no-backup-if-mismatch -d "$work/tree" <"$patch"
    build $targets
    built=$?
    settle
    if [ $built = 0 ]; then
        test=$next
        begin judge "$name"
    else
        grep -m1 'error' "$work/build.log"
        fail "$name" "the patched tree does not build"
        failed=$((failed + 1))
    fi
    for file in $(sed -n 's|^+++ b/\([^[:space:]]*\).*|\1|p' "$patch"); do cp -p "$source/$file" "$work/tree/$file"; done
    keep "$work/green" "$work/build"
done
settle
finish
