// Codes of B: a row is one little-endian bit stream, low bits first (matmul_nbits.h). Work goes in units of
// 32 codes, which are BITS words whatever BITS is; a quad is 4 codes of a unit, whose bits lie in one
// word or two. Nothing but this file knows how codes lie in words.
#param BITS 1..8

#include "nbits_trace.inc.wgsl"

const QUADS = 8u; // of a unit
const CODE_MASK = (1u << BITS) - 1u;

// The words of a quad, the second one where it crosses. With TRACE also the address of the first, and the unit
// or TRACE_NONE.
#if TRACE == 1
alias Quad = vec4<u32>;
#else
alias Quad = vec2<u32>;
#endif

// The word of a unit in which quad q begins, and its bit there.
fn quad_word(q: u32) -> u32 {
    return 4u * BITS * q / 32u;
}

fn quad_shift(q: u32) -> u32 {
    return 4u * BITS * q % 32u;
}

// Whether it ends in the next word.
fn quad_crosses(q: u32) -> bool {
#if BITS == 1 || BITS == 2 || BITS == 4 || BITS == 8
    return false;
#else
    return quad_shift(q) + 4u * BITS > 32u;
#endif
}

// The bits of codes 4q to 4q + 3 from the words of their quad; above them may be others.
fn quad_bits(words: Quad, q: u32) -> u32 {
    let shift = quad_shift(q);
    if (quad_crosses(q)) {
        return (words.x >> shift) | (words.y << (32u - shift));
    }
    return words.x >> shift;
}

// Codes 4q to 4q + 3.
fn unpack_quad(words: Quad, q: u32) -> vec4<u32> {
    let shifts = vec4<u32>(0u, BITS, 2u * BITS, 3u * BITS);
    let codes = (vec4<u32>(quad_bits(words, q)) >> shifts) & vec4<u32>(CODE_MASK);
#if TRACE == 1
    let elements = vec4<u32>(0u, 1u, 2u, 3u) + 4u * (q % 4u);
    trace_codes(words.w, q, words.z, words.xy, CODE_MASK,
                vec3<u32>(bytes_of(shifts + quad_shift(q)), bytes_of(codes), bytes_of(elements)));
#endif
    return codes;
}

#if TRACE == 1
fn bytes_of(x: vec4<u32>) -> u32 {
    return x.x | (x.y << 8u) | (x.z << 16u) | (x.w << 24u);
}
#endif

// For integer dots the codes of a quad lie in the bytes of a word, in the order that is cheapest to get: with
// 2 and 4 bits every fourth or second code. 8-bit codes lose CODE_OFFSET, so that they fit int8.
#if BITS == 8
const CODE_OFFSET = 128;
#else
const CODE_OFFSET = 0;
#endif

fn pack_quad(words: Quad, q: u32) -> u32 {
#if BITS == 2
    let shift = 2u * (q % 4u);
    let bytes = (words.x >> shift) & 0x03030303u;
#elif BITS == 4
    let shift = 4u * (q % 2u);
    let bytes = (words.x >> shift) & 0x0f0f0f0fu;
#elif BITS == 8
    let bytes = words.x ^ 0x80808080u;
#else
    // Pairs into halves, then codes into bytes.
    let bits = quad_bits(words, q);
    let pair_mask = (1u << (2u * BITS)) - 1u;
    let pairs = (bits & pair_mask) | (((bits >> (2u * BITS)) & pair_mask) << 16u);
    let mask = CODE_MASK * 0x00010001u;
    let bytes = (pairs & mask) | (((pairs >> BITS) & mask) << 8u);
#endif
#if TRACE == 1
#if BITS == 2 || BITS == 4
    let shifts = vec4<u32>(0u, 8u, 16u, 24u) + shift;
#else
    let shifts = vec4<u32>(0u, BITS, 2u * BITS, 3u * BITS) + quad_shift(q);
#endif
    trace_codes(words.w, q, words.z, words.xy, CODE_MASK,
                vec3<u32>(bytes_of(shifts), bytes ^ (u32(CODE_OFFSET) * 0x01010101u),
                          packed_elements(q)));
#endif
    return bytes;
}

fn pack_four(q: vec4<i32>) -> u32 {
    let bytes = bitcast<vec4<u32>>(q) & vec4<u32>(0xffu);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

// Four quads of int8 activations, in the order of pack_quad.
fn pack_sixteen(q0: vec4<i32>, q1: vec4<i32>, q2: vec4<i32>, q3: vec4<i32>) -> vec4<u32> {
#if BITS == 2
    return vec4<u32>(pack_four(vec4<i32>(q0.x, q1.x, q2.x, q3.x)),
                     pack_four(vec4<i32>(q0.y, q1.y, q2.y, q3.y)),
                     pack_four(vec4<i32>(q0.z, q1.z, q2.z, q3.z)),
                     pack_four(vec4<i32>(q0.w, q1.w, q2.w, q3.w)));
#elif BITS == 4
    return vec4<u32>(pack_four(vec4<i32>(q0.xz, q1.xz)), pack_four(vec4<i32>(q0.yw, q1.yw)),
                     pack_four(vec4<i32>(q2.xz, q3.xz)), pack_four(vec4<i32>(q2.yw, q3.yw)));
#else
    return vec4<u32>(pack_four(q0), pack_four(q1), pack_four(q2), pack_four(q3));
#endif
}

#if TRACE == 1
// Which elements of half a unit of A meet the bytes of quad q: where pack_sixteen has their numbers.
fn packed_elements(q: u32) -> u32 {
    let numbers = pack_sixteen(vec4<i32>(0, 1, 2, 3), vec4<i32>(4, 5, 6, 7),
                               vec4<i32>(8, 9, 10, 11), vec4<i32>(12, 13, 14, 15));
    return numbers[q % 4u];
}
#endif
