// DequantizeLinear: y = (code - zero_point) * scale, scales as quantize.h lays them out.
// @binding(1) codes, a word each or packed as in a file; @binding(2) scales, likewise floats or as in a file
// (RAW 0 to 2); @binding(3) zero points where ZERO is 1; @binding(4) y [count]. A workgroup of 256 takes
// 256 elements; ceil(count / 256) workgroups. No features.

#param ZERO 0 1

#include "grid.inc.wgsl"
#include "raw.inc.wgsl"
#if RAW > 2
#error scales are floats
#endif

struct Uniforms {
    count: u32,
    axis: u32, // x is [outer, axis, inner]
    inner: u32,
    block: u32,
    s_outer: u32, // element (o, d, i) has scale o * s_outer + d / block * s_axis + i * s_inner
    s_axis: u32,
    s_inner: u32,
    bits: u32,      // of a code: 32 where a word holds one
    zero_bits: u32, // of a zero point
    sign: u32,      // packed codes and zero points are signed
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
#if ZERO == 1
@group(0) @binding(3) var<storage, read> zero_points: array<u32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Code i, from the word that it lies in.
fn code_of(word: u32, i: u32, bits: u32) -> i32 {
    let above = 32u - bits - i % (32u / bits) * bits; // bits of later codes
    let spread = word << above;
    return select(i32(spread >> (32u - bits)), i32(spread) >> (32u - bits), u.sign == 1u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
    let row = i / u.inner;
    let s = row / u.axis * u.s_outer + row % u.axis / u.block * u.s_axis + i % u.inner * u.s_inner;
    var code = code_of(codes[i / (32u / u.bits)], i, u.bits);
#if ZERO == 1
    code -= code_of(zero_points[s / (32u / u.zero_bits)], s, u.zero_bits);
#endif
    y[i] = f32(code) * bitcast<f32>(raw_word(scales[raw_index(s)], s));
}
