// RMS norm of A's rows in a matvec: every workgroup finds the inverse roots of its M_ROWS rows before it
// begins, and load_a (nbits_a.inc.wgsl) multiplies by them and by the gain.
#param NORM 0 1
#include "nbits_problem.inc.wgsl"
#include "nbits_reduce.inc.wgsl"

#if NORM == 1
#if A_VEC4 == 1
@group(0) @binding(8) var<storage, read> gain: array<vec4<f32>>; // [K]

fn load_gain(k: u32) -> vec4<f32> {
    return gain[min(k, problem.K - 1u) / 4u];
}
#else
@group(0) @binding(8) var<storage, read> gain: array<f32>; // [K]

fn load_gain(k: u32) -> vec4<f32> {
    let last = problem.K - 1u;
    return vec4<f32>(gain[min(k, last)], gain[min(k + 1u, last)], gain[min(k + 2u, last)],
                     gain[min(k + 3u, last)]);
}
#endif

const NORM_FOURS = (M_ROWS + 3u) / 4u;

// Of row m at m % M_ROWS: a workgroup's first row is a multiple of M_ROWS.
var<private> inverse_roots: array<vec4<f32>, NORM_FOURS>;

fn norm_quad(m: u32, k: u32, x: vec4<f32>) -> vec4<f32> {
    return x * inverse_roots[m % M_ROWS / 4u][m % M_ROWS % 4u] * load_gain(k);
}

// By all threads. Sums of squares lie in shared_quads, which is free before the first stage_a.
fn find_inverse_roots(first_m: u32, t: u32) {
    var squares: array<vec4<f32>, NORM_FOURS>;
    for (var m = 0u; m < M_ROWS; m++) {
        var square = vec4<f32>();
        for (var k = 4u * t; k < problem.K; k += 4u * THREADS) {
            let x = load_raw_a(first_m + m, k);
            square += x * x;
        }
        squares[m / 4u][m % 4u] = square.x + square.y + square.z + square.w;
    }
    for (var i = 0u; i < NORM_FOURS; i++) {
        shared_quads[i * THREADS + t] = bitcast<vec4<u32>>(squares[i]);
    }
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (t < half) {
            for (var i = 0u; i < NORM_FOURS; i++) {
                squares[i] += bitcast<vec4<f32>>(shared_quads[i * THREADS + t + half]);
                shared_quads[i * THREADS + t] = bitcast<vec4<u32>>(squares[i]);
            }
        }
    }
    workgroupBarrier();
    for (var i = 0u; i < NORM_FOURS; i++) {
        let sum = bitcast<vec4<f32>>(shared_quads[i * THREADS]);
        inverse_roots[i] = inverseSqrt(sum * problem.norm_share + vec4<f32>(problem.norm_epsilon));
    }
}
#endif
