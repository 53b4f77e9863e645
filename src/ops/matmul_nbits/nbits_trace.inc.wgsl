// TRACE 1: what the products of one element of Y are made of, written where the loads and the unpacking are, for
// nbits_trace.c to compare. A unit (32 elements of K) has TRACE_UNIT vectors, which begin as TRACE_NONE:
//
//     [0, 32)    for a zero point, at the first product that it is for:
//                their number and 65536 * shift, block, address, value
//     [32, 64)   for a scale, likewise: number, block, address, value
//     [64, 104)  for each quad five: address of a word of B, that word and the next, mask of a code;
//                bytes: shifts of the four codes, codes, elements of the half unit that they meet, 0;
//                indices in A; values of A; int8 codes of A in bytes, elements that they are, 0, 0
//     [104, 106) for each half the scale of A's int8 codes
//
// Addresses are in bytes, from what is bound on. Of A it is the place that counts where the shader holds it to be
// multiplied, wherever it took it from.
#include "nbits_problem.inc.wgsl"

#if TRACE == 1
@group(0) @binding(10) var<storage, read_write> trace: array<vec4<u32>>;

const TRACE_NONE = 0xffffffffu;
const TRACE_UNIT = 106u;

// This workgroup has the traced row of A.
var<private> trace_on = false;
// Where the last word of B came from.
var<private> trace_address: u32;
// Products that the next zero points and scales are for.
var<private> trace_first: u32;
var<private> trace_count: u32;
// Unit that A is brought to, and quad there that its next elements are for.
var<private> trace_a_unit = TRACE_NONE;
var<private> trace_a_quad = TRACE_NONE;

fn trace_put(unit: u32, at: u32, words: vec4<u32>) {
    if (unit < problem.units) {
        trace[unit * TRACE_UNIT + at] = words;
    }
}

fn trace_rows(first_m: u32, count: u32) {
    trace_on = problem.trace_m - first_m < count;
}

fn is_traced(n: u32) -> bool {
    return trace_on & (n == problem.trace_n);
}

fn trace_range(first: u32, count: u32) {
    trace_first = first;
    trace_count = count;
}

fn trace_zero_point(n: u32, g: u32, address: u32, shift: u32, value: f32) {
    if (is_traced(n)) {
        trace_put(trace_first / 32u, trace_first % 32u,
                  vec4<u32>(trace_count | (shift << 16u), g, address, bitcast<u32>(value)));
    }
}

fn trace_scale(n: u32, g: u32, address: u32, value: f32) {
    if (is_traced(n)) {
        trace_put(trace_first / 32u, 32u + trace_first % 32u,
                  vec4<u32>(trace_count, g, address, bitcast<u32>(value)));
    }
}

fn trace_codes(unit: u32, q: u32, address: u32, words: vec2<u32>, mask: u32, bytes: vec3<u32>) {
    if (unit != TRACE_NONE) {
        trace_put(unit, 64u + 5u * q, vec4<u32>(address, words, mask));
        trace_put(unit, 65u + 5u * q, vec4<u32>(bytes, 0u));
    }
}

// Row m of A is brought to where unit `unit` is multiplied.
fn trace_a_begin(m: u32, unit: u32) {
    trace_a_unit = select(TRACE_NONE, unit, m == problem.trace_m);
}

// What is loaded next is for the quad of that unit in which k lies.
fn trace_a_next(k: u32) {
    trace_a_quad = select(k / 4u % 8u, TRACE_NONE, trace_a_unit == TRACE_NONE);
}

fn trace_a_indices(index: u32) {
    if (trace_a_quad != TRACE_NONE) {
        trace_put(trace_a_unit, 66u + 5u * trace_a_quad, vec4<u32>(0u, 1u, 2u, 3u) + index);
    }
}

fn trace_a_index(i: u32, index: u32) {
    if ((trace_a_quad != TRACE_NONE) & (trace_a_unit < problem.units)) {
        trace[trace_a_unit * TRACE_UNIT + 66u + 5u * trace_a_quad][i] = index;
    }
}

fn trace_a_values(x: vec4<f32>) {
    if (trace_a_quad != TRACE_NONE) {
        trace_put(trace_a_unit, 67u + 5u * trace_a_quad, bitcast<vec4<u32>>(x));
    }
    trace_a_quad = TRACE_NONE;
}

fn trace_a_codes(q: u32, codes: u32, elements: u32) {
    if (trace_a_unit != TRACE_NONE) {
        trace_put(trace_a_unit, 68u + 5u * q, vec4<u32>(codes, elements, 0u, 0u));
    }
}

fn trace_a_scale(half: u32, scale: f32) {
    if (trace_a_unit != TRACE_NONE) {
        trace_put(trace_a_unit, 104u + half, vec4<u32>(bitcast<u32>(scale), 0u, 0u, 0u));
    }
}
#endif
