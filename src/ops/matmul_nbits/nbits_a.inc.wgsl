// a: [M, K] floats, or their RMS norm (nbits_norm.inc.wgsl). What is past a row's end or the last row
// reads as 0.
#param A_VEC4 0 1 // 1: K is a multiple of 4
#include "nbits_problem.inc.wgsl"
#include "nbits_trace.inc.wgsl"

// Plain branches here and below: where these calls are written out, SwiftShader takes twice as long to compile for
// each early return or || (docs/ADDING.md).
fn is_in_a(m: u32, k: u32) -> bool {
    return (m < problem.M) & (k < problem.K);
}

#if A_VEC4 == 1
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;

fn load_raw_a(m: u32, k: u32) -> vec4<f32> {
    var x = vec4<f32>();
    if (is_in_a(m, k)) {
        let at = (m * problem.K + k) / 4u;
#if TRACE == 1
        trace_a_indices(4u * at);
#endif
        x = a[at];
    }
    return x;
}
#else
@group(0) @binding(1) var<storage, read> a: array<f32>;

fn load_a_element(m: u32, k: u32) -> f32 {
    var x = 0.0;
    if (is_in_a(m, k)) {
        let at = m * problem.K + k;
#if TRACE == 1
        trace_a_index(k % 4u, at);
#endif
        x = a[at];
    }
    return x;
}

fn load_raw_a(m: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(load_a_element(m, k), load_a_element(m, k + 1u), load_a_element(m, k + 2u),
                     load_a_element(m, k + 3u));
}
#endif

// k is a multiple of 4.
fn load_a(m: u32, k: u32) -> vec4<f32> {
#if defined NORM && NORM == 1
    let x = norm_quad(m, k, load_raw_a(m, k));
#else
    let x = load_raw_a(m, k);
#endif
#if TRACE == 1
    trace_a_values(x);
#endif
    return x;
}
