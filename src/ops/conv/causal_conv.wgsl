// CausalConvWithState (causal_conv.c): with v = past ++ x along time,
//   STATE 0  y[b, c, t] = silu?(bias[c] + sum over j of weight[c, j] * v[t + j * dilation])
//   STATE 1  present[k, b, c, s] = the state after all positions but the last windows - 1 - k, or 0 where this
//            call has no such position
// @binding(1) x, @binding(2) past with PAST 1, @binding(3) weight [C, taps] and @binding(4) bias [C] with
// STATE 0 (BIAS 1), @binding(5) y or present. x and y are [B, C, L] and states [B, C, S], with channels last
// [B, L, C] and [B, S, C]. A workgroup of 256 takes 256 elements of the output; ceil(count / 256) workgroups. No
// features.
#param STATE 0 1
#param PAST 0 1
#param BIAS 0 1
#param SILU 0 1

#include "grid.inc.wgsl"
#if STATE == 0
#include "math.inc.wgsl"
#elif BIAS == 1 || SILU == 1
#error a state is copied
#endif

struct Uniforms {
    count: u32, // of the output
    batch: u32,
    channels: u32,
    length: u32,
    taps: u32,
    dilation: u32,
    state_length: u32,
    windows: u32, // slots of the output's state, at least 1
    past_at: u32, // where the past's last slot begins
    channels_last: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<f32>;
#if PAST == 1
@group(0) @binding(2) var<storage, read> past: array<f32>;
#endif
#if STATE == 0
@group(0) @binding(3) var<storage, read> weight: array<f32>;
#endif
#if BIAS == 1
@group(0) @binding(4) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// Where element t of a channel is among n.
fn index_of(b: u32, c: u32, t: u32, n: u32) -> u32 {
    return select((b * u.channels + c) * n + t, (b * n + t) * u.channels + c, u.channels_last == 1u);
}

// v[i].
fn value_at(b: u32, c: u32, i: u32) -> f32 {
    if i >= u.state_length {
        return x[index_of(b, c, i - u.state_length, u.length)];
    }
#if PAST == 1
    return past[u.past_at + index_of(b, c, i, u.state_length)];
#else
    return 0.0;
#endif
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
#if STATE == 0
    let n = u.length;
#else
    let n = u.state_length;
#endif
    var c = i / n % u.channels;
    var t = i % n;
    if u.channels_last == 1u {
        c = i % u.channels;
        t = i / u.channels % n;
    }
    let row = i / (n * u.channels);
#if STATE == 0
#if BIAS == 1
    var sum = bias[c];
#else
    var sum = 0.0;
#endif
    for (var j = 0u; j < u.taps; j++) {
        sum += weight[c * u.taps + j] * value_at(row, c, t + j * u.dilation);
    }
#if SILU == 1
    sum *= math_sigmoid(sum);
#endif
    y[i] = sum;
#else
    let left_out = u.windows - 1u - row / u.batch;
    if left_out > 0u && left_out >= u.length {
        y[i] = 0.0;
    } else {
        y[i] = value_at(row % u.batch, c, u.length - left_out + t);
    }
#endif
}
