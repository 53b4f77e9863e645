// GatherBlockQuantized (gather_block_quantized.h): y = (code - zero_point) * scale for rows that indices pick;
// zeros where an index is out of range. @binding(1) codes, @binding(2) indices, @binding(3) scales as the file
// has them or as floats, @binding(4) zero points (with ZERO > 0), @binding(5) y.
// A workgroup of 256 takes 256 elements of y; ceil(count / 256) workgroups. No features.

#param BITS 2 4 8
// How codes lie: 1 packed, unsigned; 2 packed, signed; 3 packed bytes, one to a word; 4 one to a word.
#param CODES 1..4
#param ZERO 0..4 // zero points likewise; 0: there are none

#include "grid.inc.wgsl"
#include "raw.inc.wgsl"
#if RAW > 2
#error scales are floats
#endif

struct Uniforms {
    count: u32,
    n_indices: u32,
    gather_dim: u32,
    block_size: u32,
    c1: u32,
    q: u32,
    c2: u32,
    q_blocks: u32,
    a_inner: u32,
    q_outer: u32,
    quantized: u32, // dbt_gbq_where
    zero_point: i32, // with ZERO 0
    zero_row: u32, // zero points in a row that begins on a byte, or 0
    zero_row_stride: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<i32>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;
#if ZERO > 0
@group(0) @binding(4) var<storage, read> zero_points: array<u32>;
#endif
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// Codes in a word.
fn codes_per_word(form: u32) -> u32 {
    switch form {
        case 4u: { return 1u; }
        case 3u: { return 8u / BITS; }
        default: { return 32u / BITS; }
    }
}

// Code i of a form, from the word that it lies in.
fn code_of(word: u32, i: u32, form: u32) -> i32 {
    let shift = i % codes_per_word(form) * BITS;
    switch form {
        case 4u: { return bitcast<i32>(word); }
        case 2u: { return extractBits(bitcast<i32>(word), shift, BITS); }
        default: { return bitcast<i32>(extractBits(word, shift, BITS)); }
    }
}

fn zero_point_at(i: u32) -> i32 {
#if ZERO == 0
    return u.zero_point;
#else
    var at = i;
    if u.zero_row > 0u {
        at = i / u.zero_row * u.zero_row_stride + i % u.zero_row;
    }
    return code_of(zero_points[at / codes_per_word(ZERO)], at, ZERO);
#endif
}

// The index of the scale of the first element of data[a, index].
fn scale_base(a: u32, index: u32) -> u32 {
    if u.quantized == 2u {
        return (a * u.gather_dim + index) * u.c1 * u.q_blocks * u.c2;
    }
    if u.quantized == 1u {
        return (a * u.q_blocks + index / u.block_size) * u.c2;
    }
    let outer = a / u.a_inner;
    let block = outer / u.q_outer * u.q_blocks + outer % u.q_outer / u.block_size;
    return ((block * u.a_inner + a % u.a_inner) * u.gather_dim + index) * u.c2;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
    let slice = u.c1 * u.q * u.c2;
    let a = i / slice / u.n_indices;
    var index = indices[i / slice % u.n_indices];
    if index < 0 {
        index += i32(u.gather_dim);
    }
    let row = bitcast<u32>(index);
    if row >= u.gather_dim {
        y[i] = 0.0;
        return;
    }
    let inside = i % slice;
    let at = (a * u.gather_dim + row) * slice + inside;
    let block = inside / (u.q * u.c2) * u.q_blocks + inside / u.c2 % u.q / u.block_size;
    let s = scale_base(a, row) + block * u.c2 + inside % u.c2;
    let code = code_of(codes[at / codes_per_word(CODES)], at, CODES);
    y[i] = f32(code - zero_point_at(s)) * bitcast<f32>(raw_word(scales[raw_index(s)], s));
}
