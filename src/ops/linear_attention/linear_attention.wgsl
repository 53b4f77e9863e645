// LinearAttention (linear_attention.c): a thread has one column of a head's memory S [d_k, d_v], which no other
// column depends on, and goes through the tokens. S lies in the last slot of `state` [slots, batch, kv_heads, d_k,
// d_v]; with more slots the ones before it get what S is after earlier tokens, or 0 where there is none.
// @binding(1) query, @binding(2) key, @binding(3) value, @binding(4) past with PAST 1, @binding(5) decay with
// DECAY 1, @binding(6) beta with DELTA 1, @binding(7) state, @binding(8) y.
// A workgroup of 64 takes 64 columns; ceil(batch * kv_heads * d_v / 64) workgroups. No features.
#param PAST 0 1
#param DECAY 0 1
#param DELTA 0 1

#include "grid.inc.wgsl"
#include "math.inc.wgsl"

struct Uniforms {
    columns: u32, // batch * kv_heads * d_v
    length: u32,
    q_heads: u32,
    k_heads: u32,
    kv_heads: u32,
    d_k: u32,
    d_v: u32,
    slots: u32,
    decay_width: u32, // elements of a token
    beta_width: u32,
    decay_by_row: u32,
    past_at: u32, // where the past's last slot begins
    scale: f32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> query: array<f32>;
@group(0) @binding(2) var<storage, read> key: array<f32>;
@group(0) @binding(3) var<storage, read> value: array<f32>;
#if PAST == 1
@group(0) @binding(4) var<storage, read> past: array<f32>;
#endif
#if DECAY == 1
@group(0) @binding(5) var<storage, read> decay: array<f32>;
#endif
#if DELTA == 1
@group(0) @binding(6) var<storage, read> beta: array<f32>;
#endif
@group(0) @binding(7) var<storage, read_write> state: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

// Row i of a column is at first + i * d_v.
fn begin(first: u32, slot: u32, past_first: u32) {
    for (var i = 0u; i < u.d_k; i++) {
#if PAST == 1
        state[first + i * u.d_v] = past[past_first + i * u.d_v];
#else
        state[first + i * u.d_v] = 0.0;
#endif
        for (var s = 1u; s < u.slots; s++) {
            state[first - s * slot + i * u.d_v] = 0.0;
        }
    }
}

fn update(first: u32, token: u32, head: u32, v: f32) {
    let k_first = (token * u.k_heads + head / (u.kv_heads / u.k_heads)) * u.d_k;
#if DECAY == 1
    let decay_first = token * u.decay_width + select(head, head * u.d_k, u.decay_by_row == 1u);
    for (var i = 0u; i < u.d_k; i++) {
        state[first + i * u.d_v] *= math_exp(decay[decay_first + i * u.decay_by_row]);
    }
#endif
    var e = v;
#if DELTA == 1
    var sum = 0.0;
    for (var i = 0u; i < u.d_k; i++) {
        sum += key[k_first + i] * state[first + i * u.d_v];
    }
    e = beta[token * u.beta_width + select(head, 0u, u.beta_width == 1u)] * (v - sum);
#endif
    for (var i = 0u; i < u.d_k; i++) {
        state[first + i * u.d_v] += key[k_first + i] * e;
    }
}

// Column j of the outputs that read this head's memory.
fn read_out(first: u32, token: u32, head: u32, j: u32) {
    let group = max(u.q_heads / u.kv_heads, 1u);
    let shared_by = max(u.kv_heads / u.q_heads, 1u);
    for (var m = 0u; m < group; m++) {
        let q_first = (token * u.q_heads + (head * group + m) / shared_by) * u.d_k;
        var sum = 0.0;
        for (var i = 0u; i < u.d_k; i++) {
            sum += query[q_first + i] * state[first + i * u.d_v];
        }
        y[((token * u.kv_heads + head) * group + m) * u.d_v + j] = u.scale * sum;
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let column = grid_index(group, groups) * 64u + lane;
    if column >= u.columns {
        return;
    }
    let j = column % u.d_v;
    let row = column / u.d_v; // of batch * kv_heads
    let slot = u.columns * u.d_k;
    let first = (u.slots - 1u) * slot + row * u.d_k * u.d_v + j;
    begin(first, slot, u.past_at + row * u.d_k * u.d_v + j);
    for (var t = 0u; t < u.length; t++) {
        let token = row / u.kv_heads * u.length + t;
        let head = row % u.kv_heads;
        update(first, token, head, value[(token * u.kv_heads + head) * u.d_v + j]);
        read_out(first, token, head, j);
        let left = u.length - 1u - t; // tokens after this one
        if left > 0u && left < u.slots {
            for (var i = 0u; i < u.d_k; i++) {
                state[first - left * slot + i * u.d_v] = state[first + i * u.d_v];
            }
        }
    }
}
