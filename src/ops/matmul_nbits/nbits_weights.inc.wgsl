// Codes minus zero points as floats.
#param G_IDX 0 1       // 1: element k is of block g_idx[k], and weights come with their scales
#include "nbits_b.inc.wgsl"
#include "nbits_block.inc.wgsl"
#include "nbits_scale.inc.wgsl"
#include "nbits_zero_point.inc.wgsl"
#if G_IDX == 1
@group(0) @binding(6) var<storage, read> g_idx: array<i32>; // [K]
#endif

// Codes 4q to 4q + 3 minus their zero point; offset is the block's weight_offset.
#if ZERO_POINT <= 1
// Without conversions: 2^23 + code is the bits of 2^23 with the code in them, and to take 2^23 + zero point
// off is exact.
const EXPONENT = 0x4b000000u;

fn weight_offset(n: u32, g: u32) -> f32 {
    return bitcast<f32>(EXPONENT | zero_point_code(n, g));
}

fn weights(words: Quad, q: u32, offset: f32) -> vec4<f32> {
    return bitcast<vec4<f32>>(unpack_quad(words, q) | vec4<u32>(EXPONENT)) - vec4<f32>(offset);
}
#else
fn weight_offset(n: u32, g: u32) -> f32 {
    return zero_point_at(n, g);
}

fn weights(words: Quad, q: u32, offset: f32) -> vec4<f32> {
    return vec4<f32>(unpack_quad(words, q)) - vec4<f32>(offset);
}
#endif

#if G_IDX == 1
fn weight_of_group(code: u32, n: u32, k: u32) -> f32 {
    var weight = 0.0;
    if (k < problem.K) {
        let g = u32(g_idx[k]);
#if TRACE == 1
        trace_range(k, 1u);
#endif
        weight = (f32(code) - zero_point_at(n, g)) * scale_at(n, g);
    }
    return weight;
}

// Codes 4q to 4q + 3 of a unit of row n, whole weights.
fn weights_of_groups(words: Quad, n: u32, unit: u32, q: u32) -> vec4<f32> {
    let codes = unpack_quad(words, q);
    let k = 32u * unit + 4u * q;
    return vec4<f32>(weight_of_group(codes.x, n, k), weight_of_group(codes.y, n, k + 1u),
                     weight_of_group(codes.z, n, k + 2u), weight_of_group(codes.w, n, k + 3u));
}
#endif
