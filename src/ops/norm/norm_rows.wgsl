// Norms of rows, as norm.h says: s = term 0 + term 1 + term 2,
//     y = (s - mean) / sqrt(sum((s - mean)^2) / n + epsilon) * gain + shift
// A workgroup of LANES takes a row, few of them where barriers are slow; `rows` workgroups. No features.
// @binding(1) to (3) the terms [their rows, n], as many as TERMS; @binding(4) gain, @binding(5) shift where
// SHIFT is 1; @binding(6) y [rows, n]; @binding(7) s [rows, n] where OUT is 1. With OUT 2 there is
// only @binding(6) [rows], the mean or the inverse root, beside the terms.

#param CENTRED 0 1
#param TERMS 1..3
#param SHIFT 0 1
#param OUT 0..2
#param LANES 4 64 256

#include "grid.inc.wgsl"
#include "workgroup.inc.wgsl"

struct Uniforms {
    term_rows: vec4<u32>, // row r of a term is its row r % term_rows
    rows: u32,
    n: u32,
    groups: u32,   // row r has the gains (r % groups) * group_gains and on; each is for `per`
    group_gains: u32, // elements in a row, gains and shifts repeat every gain_n and shift_n
    per: u32,
    gain_n: u32,
    shift_n: u32,
    inverse: u32, // OUT 2: not the mean
    epsilon: f32,
    share: f32, // 1 / n
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> term0: array<f32>;
#if TERMS > 1
@group(0) @binding(2) var<storage, read> term1: array<f32>;
#endif
#if TERMS > 2
@group(0) @binding(3) var<storage, read> term2: array<f32>;
#endif
#if OUT < 2
@group(0) @binding(4) var<storage, read> gain: array<f32>;
#if SHIFT == 1
@group(0) @binding(5) var<storage, read> shift: array<f32>;
#endif
#endif
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
#if OUT == 1
@group(0) @binding(7) var<storage, read_write> s: array<f32>;
#endif

fn element(row: u32, i: u32) -> f32 {
    var v = term0[row % u.term_rows.x * u.n + i];
#if TERMS > 1
    v += term1[row % u.term_rows.y * u.n + i];
#endif
#if TERMS > 2
    v += term2[row % u.term_rows.z * u.n + i];
#endif
    return v;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = grid_index(group, groups);
    if row >= u.rows {
        return;
    }
    var mean = 0.0;
#if CENTRED == 1
    var sum = 0.0;
    for (var i = lane; i < u.n; i += u32(LANES)) {
        sum += element(row, i);
    }
    mean = workgroup_sum(lane, sum) * u.share;
#endif
    var squares = 0.0;
    for (var i = lane; i < u.n; i += u32(LANES)) {
        let d = element(row, i) - mean;
        squares += d * d;
    }
    let inv = inverseSqrt(workgroup_sum(lane, squares) * u.share + u.epsilon);
#if OUT == 2
    if lane == 0u {
        y[row] = select(mean, inv, u.inverse == 1u);
    }
#else
    let first = row % u.groups * u.group_gains;
    for (var i = lane; i < u.n; i += u32(LANES)) {
        let v = element(row, i);
        var out = (v - mean) * inv * gain[first + i / u.per % u.gain_n];
#if SHIFT == 1
        out += shift[first + i / u.per % u.shift_n];
#endif
        y[row * u.n + i] = out;
#if OUT == 1
        s[row * u.n + i] = v;
#endif
    }
#endif
}
