#!/bin/sh
# Test: what the verbs print, where, and with which exit code. usage: test_cli.sh DIBIT SOURCE_DIR WORK_DIR
set -u
dibit=$1 source=$2 work=$3
cases=$source/tests/data/cases
passed=0 failed=0 skipped=0
rm -rf "$work"
mkdir -p "$work"

# expect NAME CODE STDOUT_REGEX STDERR_REGEX ARGUMENTS...; an empty expression: nothing may be printed
# there. With a code other than 0 stderr has one line, unless stdout explains (check).
expect() {
    name=$1 code=$2 out=$3 err=$4
    shift 4
    "$dibit" "$@" > "$work/out" 2> "$work/err" < /dev/null
    got=$?
    why=
    [ $got = "$code" ] || why="exit code $got, expected $code"
    if [ -n "$out" ]; then grep -Eq -- "$out" "$work/out" || why="$why; stdout lacks '$out'"
    elif [ -s "$work/out" ]; then why="$why; stdout is not empty"; fi
    if [ -n "$err" ]; then grep -Eq -- "$err" "$work/err" || why="$why; stderr lacks '$err'"
    elif [ -s "$work/err" ]; then why="$why; stderr is not empty"; fi
    if [ "$code" != 0 ] && [ -n "$err" ] && [ "$(wc -l < "$work/err")" != 1 ]; then
        why="$why; stderr has more than a line"
    fi
    if [ -z "$why" ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED: $name: $why"
        head -n 3 "$work/out" "$work/err"
    fi
}

# ---- Usage ------------------------------------------------------------------------------------
expect "no verb" 2 '' 'no verb given'
expect "unknown verb" 2 '' "no verb 'sing'" sing
expect "help" 0 'usage: dibit VERB' '' --help
expect "version" 0 '^dibit [0-9]+\.[0-9]+\.[0-9]+$' '' --version
for verb in $("$dibit" --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'); do
    expect "$verb --help" 0 "^usage: dibit $verb" '' "$verb" --help
    expect "$verb with an unknown option" 2 '' "dibit $verb: .*--wrong" "$verb" --wrong
done
expect "option without its value" 2 '' '--rtol needs R' check x --rtol
expect "option with a wrong value" 2 '' "--threads cannot be 'two'" check x --threads two
expect "flag with a value" 2 '' '--json takes no value' check x --json=1
expect "unknown device" 2 '' "--device cannot be 'npu'" check x --device npu
expect "unknown feature" 2 '' "--isa cannot be 'avx2,mmx'" check x --isa avx2,mmx
expect "missing argument" 2 '' 'expected DIR' check
expect "too many arguments" 2 '' "'b' is one argument too many" info a b
expect "-- ends the options" 1 '' 'dibit info: --json' info -- --json

# ---- Verify -----------------------------------------------------------------------------------
expect "verify" 0 '^6 passed, 0 failed, [0-9]+ skipped$' '' verify --isa portable --quick
expect "verify as JSON" 0 '"kernel": "dbt_nbits_b2_int8_portable"' '' verify --json --quick
expect "verify has one scope" 2 '' '--quick does not go with --full' verify --quick --full
expect "verify on nothing" 1 '' 'null device computes nothing' verify --device null

# ---- Devices ----------------------------------------------------------------------------------
expect "no WebGPU library" 1 '' 'dibit check: cannot use the WebGPU library: /nowhere/gpu.so: .*pip install' \
    check "$cases/llama.q2" --device webgpu --webgpu-lib /nowhere/gpu.so
expect "a library of another kind" 1 '' "'libm.so.6' has no wgpuCreateInstance, so it is not wgpu-native" \
    check "$cases/llama.q2" --device webgpu --webgpu-lib libm.so.6
expect "auto without a library" 0 '"why": "auto took the CPU: cannot use the WebGPU library' '^4 passed' \
    check "$cases/llama.q2" --device auto --webgpu-lib /nowhere/gpu.so --json
expect "info says why" 0 '^  auto took the CPU: cannot' '' \
    info "$cases/llama.q2" --device auto --webgpu-lib /nowhere/gpu.so
export DIBIT_WEBGPU_LIB=/nowhere/env.so
expect "DIBIT_WEBGPU_LIB" 1 '' '/nowhere/env.so' check "$cases/llama.q2" --device webgpu
unset DIBIT_WEBGPU_LIB

# ---- Tuning -----------------------------------------------------------------------------------
printf 'dibit tune 1\n# of a test\n2 int8 1 dbt_nbits_b2_int8_portable\n' > "$work/tune"
expect "--tune" 0 'dbt_nbits_b2_int8_portable$' '' bench-op matmul_nbits -m 1 --n 16 --k 32 --megabytes 0 --tune "$work/tune"
export DIBIT_TUNE="$work/tune"
expect "DIBIT_TUNE" 0 'dbt_nbits_b2_int8_portable$' '' bench-op matmul_nbits -m 1 --n 16 --k 32 --megabytes 0
export DIBIT_TUNE="$work/no_tune"
expect "DIBIT_TUNE on no file" 1 '' 'no_tune: cannot be opened$' check "$cases/llama.q2"
unset DIBIT_TUNE
echo '2 int8 1 dbt_nbits_b2_int8_portable' > "$work/tune"
expect "tune" 0 '^dibit tune 1$' '2 bits, int8 , M    1: dbt_nbits_b2_int8_portable$' \
    tune --bits 2 --activations int8 --isa portable --rounds 3 -m 1
expect "tune is for the CPU" 2 '' 'it is for the CPU alone' tune --device null
expect "limits" 0 'float, plain C .* G products/s$' '' bench-op limits --isa portable --threads 1 --megabytes 1
expect "a bad --tune" 1 '' "tune: it must begin with the line 'dibit tune 1'$" check "$cases/llama.q2" --tune "$work/tune"

# ---- check ------------------------------------------------------------------------------------
expect "check a case" 0 '^4 passed, 0 failed, 0 skipped$' '' check "$cases/llama.q2"
expect "check --chain uses states" 0 "output 'present.0.key' stays in the states" '' check --chain -v "$cases/llama.q2"
expect "check on plain kernels" 0 ' 0 failed, 0 skipped$' '' check --isa portable --threads 1 "$cases"
expect "check with a tolerance" 0 '^4 passed' '' check --rtol 0.01 --atol 0.5 "$cases/llama.q2"
expect "check without tolerance" 1 "FAILED llama.q2/test_data_set_0: output 'logits' \[0,[0-9]+,[0-9]+\]: got .*, expected .*, off by .*, allowed 0;" '' \
    check --rtol 0 "$cases/llama.q2"
noise=$source/tests/data/noise
expect "check: some noise is not finite" 0 "output 'y': [1-5] of 6 runs with noise were lost" '' \
    check "$noise/sometimes_finite"
expect "check: all noise is not finite" 1 'FAILED .* no bound: all 6 runs with noise were lost' '' \
    check "$noise/never_finite"
expect "check --json says how much noise was lost" 1 '"noise_runs_lost": 6' '0 passed, 1 failed' \
    check --json "$noise/never_finite"
expect "check --json" 0 '"passed": 4' '4 passed, 0 failed' check --json "$cases/llama.q2"
expect "check: no such folder" 1 '^0 passed, 1 failed, 0 skipped$' 'it is no folder' check "$work/nowhere"
cp -r "$cases/llama.q2" "$work/unsupported"
sed -i 's/MatMulNBits/MatMulNBitz/g' "$work/unsupported/model.onnx"
expect "check: nothing passes" 1 '^0 passed, 0 failed, 4 skipped$' '' check "$work/unsupported"
mkdir "$work/empty"
expect "check: no model" 1 '^0 passed, 1 failed' 'no ONNX model' check "$work/empty"

cp -r "$cases/llama.q2" "$work/wrong"
printf '\000\000\200\177' | dd of="$work/wrong/test_data_set_0/output_0.pb" bs=1 conv=notrunc status=none \
    seek=$(($(wc -c < "$work/wrong/test_data_set_0/output_0.pb") - 4))
expect "check: a wrong element" 1 "test_data_set_0: output 'logits' \[0,6,511\]: got .*, expected inf.*1 of 3584" '' check "$work/wrong"
rm "$work/wrong/model.onnx"
expect "check: test data without a model" 1 '^0 passed, 1 failed' 'no model.onnx' check "$work/wrong"

# ---- diff: the null device computes nothing, so the first node that it runs is wrong --------------------
expect "diff names the first node" 1 '^FIRST prompt: node 1, Gather by itself$' '' \
    diff "$cases/llama.q2" --device null --save "$work/saved"
expect "diff says where and by how much" 1 \
    "alone: '/model/embed_tokens/Gather/output_0' \[0,[0-9],[0-9]+\] is 0, on the CPU .*: off by .*, allowed .*; 320 of 320" '' \
    diff "$cases/llama.q2" --device null
expect "diff says why a node is not compared" 1 'Sub; on the CPU: its integers are known on the host$' '' \
    diff "$cases/llama.q2" --device null
expect "diff --json" 1 '"first_alone": true' '' diff "$cases/llama.q2" --device null --json
expect "diff --decode" 1 '^FIRST step: node 1, Gather' '' diff "$cases/llama.q2" --device null --decode
expect "diff: files as inputs" 1 '^FIRST prompt: node 1' '' \
    diff "$cases/llama.q2" --device null --input "$cases/llama.q2/test_data_set_2"
expect "diff: files as reference" 1 '^FIRST prompt: node 1' '' \
    diff "$cases/llama.q2" --device null --against "$cases/llama.q2/test_data_set_1"
expect "check replays what diff saved, on the CPU" 0 '^1 passed' '' check "$work/saved"
expect "and on the device" 1 "FAILED saved/test_data_set_0: output '/model/embed_tokens/Gather/output_0'" '' \
    check "$work/saved" --device null
expect "diff: nothing on the device" 1 'there is nothing to compare$' '' \
    diff "$cases/moe_swiglu" --device null --input "$cases/moe_swiglu"
expect "diff of the CPU with itself" 2 '' '--device cpu is the reference itself' diff "$cases/llama.q2" --device cpu
expect "diff: a step after files" 2 '' '--decode follows a prompt' diff "$cases/llama.q2" --device null --decode --input x
expect "diff: no such inputs" 1 '' 'nowhere: there is no test data' diff "$cases/llama.q2" --device null --input "$work/nowhere"

# ---- trace ----------------------------------------------------------------------------------------
expect "trace: made-up weights" 0 "^the CPU's output is as defined$" '' \
    trace --bits 3 --block 16 -K 45 -N 7 -M 3 --zero-points packed --activations float --bias --index 2,6
expect "trace: every column" 0 '^ +44 +[0-9]+ 0x[0-9a-f]{8} +[0-9]+  0x07 +[0-7] +2 +[0-9]+:[0-7] +[0-7] ' '' \
    trace --bits 3 --block 16 -K 45 -N 7 --activations float --index 0,6
expect "trace: g_idx" 0 'as defined$' '' trace --bits 5 --g-idx --zero-points float16 --scales float --index 0,0
expect "trace: a node of a model" 0 '^/model/layers.0/mlp/up_proj/MatMul_Q2: 2 bits, block 32, M 5, ' '' \
    trace "$cases/llama.q2" --node /model/layers.0/mlp/up_proj/MatMul_Q2 --index 0,4,17
expect "trace: made-up weights for other verbs" 0 'as defined$' '' \
    trace --bits 3 -K 96 --index 0,1 --save "$work/made.onnx"
expect "and they are a model" 0 'MatMulNBits +3 bits, block 32, packed' '' info "$work/made.onnx"
expect "trace: a folder with its inputs" 0 ', M 2, N ' '' trace "$cases/nbits_2bit_block16_zp" --index 0,1
expect "trace: JSON" 0 '"first_wrong": -1' '' trace --bits 8 --zero-points none --index 0,1 --json
expect "trace: no element" 2 '' '--index says which' trace --bits 2
expect "trace: no index" 2 '' "--index cannot be '3'" trace --bits 2 --index 3
expect "trace: nothing to trace" 2 '' 'expected MODEL, or --bits' trace --index 0,0
expect "trace: both" 2 '' '--bits does not go with MODEL' trace "$cases/llama.q2" --bits 2 --index 0,0
expect "trace: bits" 2 '' '--bits is 1 to 8' trace --bits 9 --index 0,0
expect "trace: block" 2 '' '--block is a power of two' trace --bits 2 --block 24 --index 0,0
expect "trace: zero points" 2 '' '--zero-points is none' trace --bits 2 --zero-points some --index 0,0
expect "trace: out of range" 1 '' 'the column must be 0 to 63, got 64' trace --bits 2 --index 0,64
expect "trace: no such node" 1 '' "has no node 'x'" trace "$cases/llama.q2" --node x --index 0,0
expect "trace: which node" 1 '' 'name one of them' trace "$cases/llama.q2" --index 0,0
expect "trace: another op" 1 '' 'only MatMulNBits can be traced' \
    trace "$cases/llama.q2" --node /model/embed_tokens/Gather --index 0,0
expect "trace: a kernel of the CPU" 1 '' 'the definition is traced' trace --bits 2 --kernel x --index 0,0
expect "trace: on nothing" 1 '' 'the null device computes nothing' trace --bits 2 --index 0,0 --device null

# ---- broken models ------------------------------------------------------------------------------
mkdir "$work/cut" "$work/noise"
for bytes in 0 1 100 5000 20000; do
    head -c $bytes "$cases/llama.q2/model.onnx" > "$work/cut/model.onnx"
    expect "info: a model of $bytes bytes" 1 '' "dibit info: .*cut/model.onnx" info "$work/cut"
done
expect "info: no such file" 1 '' 'no ONNX model is there' info "$work/nowhere.onnx"
cp "$cases/llama.q2/model.onnx" "$work/cut/model.onnx" # its data file is missing
expect "info: external data is missing" 1 '' 'model.onnx.data' info "$work/cut"

# ---- info, bench --------------------------------------------------------------------------------
expect "info" 0 'com.microsoft.MatMulNBits +2 bits, block 32, packed zero points, accuracy_level 4' '' info "$cases/llama.q2"
expect "info --steps" 0 'cpu .*com.microsoft.GroupQueryAttention' '' info --steps "$cases/llama.q2"
expect "info --json" 0 '"n_steps": [0-9]+' '' info --json "$cases/llama.q2"
expect "info --dump" 0 '^input input_ids int64\[' '' info --dump "$cases/llama.q2"
expect "info --ops" 0 '^com.microsoft +MatMulNBits +1-$' '' info --ops
for key in prefill_tokens_per_s prefill_last_row_tokens_per_s decode_tokens_per_s ttft_ms peak_rss_bytes device; do
    expect "bench --json has $key" 0 "\"$key\": " '' \
        bench "$cases/llama.q2" --prompt-tokens 16 --gen-tokens 4 --threads 2 --repetitions 1 --json
done
expect "bench --profile" 0 'by operator' '' bench "$cases/llama.q2" --prompt-tokens 8 --gen-tokens 2 --repetitions 1 --profile
expect "bench --profile beside limits" 0 '[0-9] % (bytes|int8|float) +com.microsoft.MatMulNBits' '' \
    bench "$cases/llama.q2" --prompt-tokens 8 --gen-tokens 2 --repetitions 1 --profile
expect "bench --serve" 0 '^ready$' '' bench "$cases/llama.q2" --serve
printf 'prefill 4 all\nprefill 4 last\ndecode 4 2\ndecode 3 2\nmemory\ndecode 4\nmemory\n' |
    "$dibit" bench "$cases/llama.q2" --serve > "$work/out"
got=$?
if [ $got = 1 ] && [ "$(grep -Ec '^[0-9.]+$' "$work/out")" = 5 ] &&
    [ "$(tail -n 1 "$work/out")" = "error cannot measure 'decode 4'" ]; then passed=$((passed + 1)); else
    failed=$((failed + 1))
    echo "FAILED: bench --serve answers: exit code $got"
    cat "$work/out"
fi
expect "bench on an encoder" 1 '' 'dibit bench: ' bench "$cases/bert.q2"
expect "bench without a repetition" 2 '' '--repetitions must be' bench "$cases/llama.q2" --repetitions 0

# ---- run, chat, eval --------------------------------------------------------------------------
model=$source/models/smollm2-135m-instruct-2bit
expect "run without a prompt" 2 '' 'one of --prompt and --file' run "$model"
expect "run: greedy and drawing" 2 '' '--greedy does not go' run "$model" -p x --greedy --top-k 3
expect "run: --top-p out of range" 2 '' '--top-p is in 0 to 1' run "$model" -p x --top-p 1.5
expect "run: no such folder" 1 '' 'dibit run: .*nowhere' run "$work/nowhere" -p x
expect "run: a model without a tokenizer" 1 '' 'tokenizer.json' run "$cases/llama.q2" -p x
expect "run: no such prompt file" 1 '' 'nothere: cannot be opened' run "$model" -f "$work/nothere"
expect "run: an empty prompt" 1 '' 'the prompt has no tokens' run "$model" --raw -p ''
expect "run" 0 '^The sky blue is' '' run "$model" -p 'Why is the sky blue?' -n 4 --greedy --no-stats
expect "run --json" 0 '"finish": "length"' '' run "$model" -p 'Why is the sky blue?' -n 2 --greedy --json
# What --profile measures the machine with is as large as what a step reads: almost all weights.
peak() { "$dibit" bench "$model" --prompt-tokens 4 --gen-tokens 2 --repetitions 1 --json "$@" | sed -n 's/.*"peak_rss_bytes": \([0-9]*\).*/\1/p'; }
if [ -n "${DIBIT_SANITIZED:-}" ]; then
    skipped=$((skipped + 1))
    echo "skipped: bench --profile: memory with sanitizers is not the program's"
else
    plain=$(peak) profiled=$(peak --profile)
    if [ "$profiled" -lt $((plain + $(wc -c < "$model/model.onnx.data") / 2)) ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED: bench --profile: a peak of $profiled bytes, without --profile $plain"
    fi
fi
expect "eval without a text" 2 '' 'one of --text and --tokens' eval "$model"
expect "eval: --window" 2 '' '--window is at least 2' eval "$model" --text x --window 1
expect "eval: no such text" 1 '' 'nothere: cannot be opened' eval "$model" --text "$work/nothere"
echo 'The quick brown fox jumps over the lazy dog.' > "$work/fox"
expect "eval --text" 0 'perplexity [1-9][0-9.]+ \([0-9]+ tokens in 1 windows' '' eval "$model" --text "$work/fox"
expect "eval --json" 0 '"mean_nll": [0-9]' '' eval "$model" --text "$work/fox" --window 4 --max-windows 1 --json
expect "chat: --json" 2 '' "--json is for 'dibit run'" chat "$model" --json
expect "chat: the end of the input" 0 '' '' chat "$model"

same() {
    if [ "$2" = "$3" ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED: $1: '$2', expected '$3'"
    fi
}
# stdout has the generated text and nothing else.
same "run from stdin" "$(printf 'Why is the sky blue?' | "$dibit" run "$model" -f - -n 4 --greedy 2> /dev/null | od -c)" \
    "$(printf 'The sky blue is' | od -c)"
"$dibit" run "$model" -p 'Why is the sky blue?' -n 4 --greedy > "$work/out" 2> "$work/err"
same "run's figures are on stderr" "$(grep -c 'first after [0-9.]* s, then [0-9.]* tokens/s' "$work/err")" 1
# A conversation: a turn sees the one before, /reset forgets.
printf 'Why is the sky blue?\n/nonsense\n/reset\nWhy is the sky blue?\n/quit\nnot read\n' |
    "$dibit" chat "$model" --greedy -n 4 > "$work/out" 2> "$work/err"
same "chat: answers" "$(cat "$work/out")" "The sky blue is
The sky blue is"
same "chat: an unknown command" "$(grep -c 'no command /nonsense' "$work/err")" 1

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
