#!/bin/sh
# Proves that the tests of MatMulNBits can fail: each patch beside this script puts one classic mistake
# into the code, and the test that the patch names has to turn red. The unpatched tests have to be green, and
# every patch has to apply. A patch of shaders also says what `dibit diff` and `dibit trace` have to print; a
# session has to come to the right answer all the same, and to say which kernel it left out.
#
#     tests/mutants/run.sh [NAME...]        all patches, or those of these names (without .patch)
#
# A mutant is compiled and linked in build/mutants/NAME, where only the files are that it patches. Whatever else it
# consists of is taken from build/test: a unit that is linked before libdibit.a takes the place of the one therein.
# Units are the .c files that a patch changes; a patch of a header names them. As many mutants as there are
# processors are made at a time. Last line: N passed, N failed, N skipped.
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
build=$source/build/test
mutants=${DIBIT_MUTANTS_DIR:-$source/build/mutants}
tests="test_matmul_nbits test_nbits_op test_verify"
case=$source/tests/data/cases/llama.q2
floats=$source/tests/data/cases/x_hqq2_b32 # that ONNX Runtime computed with float activations
library=${DIBIT_WEBGPU_LIB:-$source/build/webgpu/libwgpu_native.so} # for shaders
ulimit -c 0 # a test that fails aborts

fail() { # says why; is false
    echo "FAILED $1: $2"
    return 1
}

# ---- One mutant: $name, in the folder $work ----------------------------------------------------

# The files that the patch changes, and in the place of shaders the file that all are in.
patched() { sed -n 's|^+++ b/\([^[:space:]]*\).*|\1|p' "$patch"; }
apply() {
    for file in $(patched); do
        mkdir -p "$work/$(dirname "$file")" && cp "$source/$file" "$work/$file" || return
    done
    patch -s -p1 --no-backup-if-mismatch -d "$work" <"$patch" || return
    units=$(sed -n 's/^units: //p' "$patch")
    [ -n "$units" ] || units=$(patched | grep '\.c$')
    patched | grep -q '\.wgsl$' || return 0
    units="$units src/shaders.c"
    shaders=$(cd "$source/src" && find . -name '*.wgsl' | sed 's|^\./||')
    for file in $shaders; do
        mkdir -p "$work/src/$(dirname "$file")" && cp -n "$source/src/$file" "$work/src/$file" || return
    done
    cmake -DROOT="$work/src" -DFILES="$(echo $shaders | tr ' ' '|')" -DOUT="$work/src/shaders.c" -P "$source/cmake/embed.cmake"
}
# Compiles the units as build/test does, but for -O1, and with patched headers before others.
compile() {
    objects=
    for unit in $units; do
        original=$source/$unit
        [ "$unit" != src/shaders.c ] || original=$build/$unit
        command=$(sed -n 's/^ *"command": "\(.*\)",$/\1/p' "$build/compile_commands.json" | grep -- " -c $original\$")
        [ -n "$command" ] || { echo "error: $unit is not compiled in build/test"; return 1; }
        [ ! -f "$work/$unit" ] || original=$work/$unit
        object=$work/$(basename "$unit").o
        (cd "$build" && $(echo "${command% -o *}" | sed "s# -I# -I$work/src -I#") -O1 -w -c "$original" -o "$object") || return
        objects="$objects $object"
    done
}
link() { # link NAME OBJECT...: an executable
    executable=$1
    shift
    "${CC:-cc}" -o "$work/$executable" $objects "$@" "$build/src/libdibit_lm.a" "$build/src/libdibit.a" \
        $(pkg-config --libs cmocka jansson libpcre2-8 libutf8proc libedit) $(pkg-config --libs zlib 2>/dev/null) -lm -ldl -lpthread
}
make_mutant() {
    apply && compile &&
        link "$test" $(find "$build/tests/CMakeFiles/$test.dir" "$build/tests/CMakeFiles/dibit_op_harness.dir" -name '*.o') &&
        case $name in
        *_wgsl) link dibit $(find "$build/cli/CMakeFiles/dibit_cli.dir" -name '*.o') ;;
        esac
}
# The test, to its first failure; on the device, if the patch is of a shader.
run_test() {
    case $name in
    *_wgsl) DIBIT_TEST_DEVICE=webgpu DIBIT_WEBGPU_LIB=$library timeout 300 "$work/$test" ;;
    *) CMOCKA_TEST_ABORT=1 timeout 300 stdbuf -oL "$work/$test" ;;
    esac >"$work/test.log" 2>&1
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

# Does the patch turn its test red, and do the tools say so?
judge() {
    name=$1 work=$mutants/$1 patch=$here/$1.patch dibit=$mutants/$1/dibit
    test=$(sed -n 's/^test: //p' "$patch")
    rm -rf "$work"
    mkdir -p "$work"
    if ! make_mutant >"$work/build.log" 2>&1; then
        grep -m1 -E 'error|FAILED|No such' "$work/build.log"
        fail "$name" "it does not apply or build: $work/build.log"
    elif run_test; then
        fail "$name" "$test stays green"
    elif [ "$test" = test_verify ] && ! grep -q '^FAILED [a-z]' "$work/test.log"; then
        fail "$name" "$test names no kernel"
    elif [ "${name%_wgsl}" = "$name" ] || tools "$name" "$patch"; then # else it has said why
        echo "ok $name: $test is red; $(grep -m1 -E '^matrix: [0-9]+ of|^FAIL |^FAILED [a-z]|by hand|no kernel|not supported' "$work/test.log" | cut -c1-160)"
    fi
}
if [ "${1:-}" = --judge ]; then
    judge "$2" >"$mutants/$2.judgement"
    exit 0
fi

# ---- All -------------------------------------------------------------------------------------------

passed=0 failed=0 skipped=0
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}
mkdir -p "$mutants"
(cd "$source" && cmake --preset test && cmake --build "$build" -j "${JOBS:-2}" --target $tests dibit_cli) >"$mutants/build.log" 2>&1 || {
    tail -20 "$mutants/build.log"
    failed=1
    finish
}
for test in $tests; do
    "$build/tests/$test" >"$mutants/test.log" 2>&1 && continue
    tail -20 "$mutants/test.log"
    fail "$test" "red without a patch"
    failed=1
    finish
done

case $(uname -m) in
x86_64 | amd64) avx2=$(grep -c -m1 -w avx2 /proc/cpuinfo) avx512=$(grep -m1 -w avx512_vnni /proc/cpuinfo | grep -c -w avx512vbmi)
    amx=$(grep -c -m1 -w amx_int8 /proc/cpuinfo) ;;
*) avx2=0 avx512=0 amx=0 ;;
esac
[ $# -gt 0 ] || set -- $(cd "$here" && ls ./*.patch | sed 's|^\./||; s|\.patch$||' | sort -t _ -k 2)
names=
for name in "$@"; do
    why=
    case $name in
    *_avx2) [ "$avx2" != 0 ] || why="this machine has no AVX2" ;;
    *_avx512) [ "$avx512" != 0 ] || why="this machine has no AVX512 with VNNI and VBMI" ;;
    *_amx) [ "$amx" != 0 ] || why="this machine has no AMX" ;;
    *_wgsl) [ -f "$library" ] || why="there is no WebGPU library $library" ;;
    esac
    if [ -n "$why" ]; then
        echo "SKIPPED $name: $why"
        skipped=$((skipped + 1))
    else
        names="$names $name"
    fi
done
for name in $names; do rm -f "$mutants/$name.judgement"; done
printf '%s\n' $names | xargs -r -n 1 -P "${JOBS:-$(nproc)}" "$here/run.sh" --judge
for name in $names; do
    cat "$mutants/$name.judgement"
    if grep -q '^ok ' "$mutants/$name.judgement"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done
finish
