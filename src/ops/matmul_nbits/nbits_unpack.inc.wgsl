// Codes of B: a row is one little-endian bit stream, low bits first (matmul_nbits.h). Work goes in units of
// 32 codes, which are BITS words whatever BITS is; a quad is 4 codes of a unit, whose bits lie in one
// word or two. Nothing but this file knows how codes lie in words.
#param BITS 1..8

const QUADS = 8u; // of a unit
const CODE_MASK = (1u << BITS) - 1u;

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
fn quad_bits(words: vec2<u32>, q: u32) -> u32 {
    let shift = quad_shift(q);
    if (quad_crosses(q)) {
        return (words.x >> shift) | (words.y << (32u - shift));
    }
    return words.x >> shift;
}

// Codes 4q to 4q + 3.
fn unpack_quad(words: vec2<u32>, q: u32) -> vec4<u32> {
    let bits = quad_bits(words, q);
    return vec4<u32>(bits, bits >> BITS, bits >> (2u * BITS), bits >> (3u * BITS)) &
           vec4<u32>(CODE_MASK);
}

// For integer dots the codes of a quad lie in the bytes of a word, in the order that is cheapest to get: with
// 2 and 4 bits every fourth or second code. 8-bit codes lose CODE_OFFSET, so that they fit int8.
#if BITS == 8
const CODE_OFFSET = 128;
#else
const CODE_OFFSET = 0;
#endif

fn pack_quad(words: vec2<u32>, q: u32) -> u32 {
#if BITS == 2
    return (words.x >> (2u * (q % 4u))) & 0x03030303u;
#elif BITS == 4
    return (words.x >> (4u * (q % 2u))) & 0x0f0f0f0fu;
#elif BITS == 8
    return words.x ^ 0x80808080u;
#else
    // Pairs into halves, then codes into bytes.
    let bits = quad_bits(words, q);
    let pair_mask = (1u << (2u * BITS)) - 1u;
    let pairs = (bits & pair_mask) | (((bits >> (2u * BITS)) & pair_mask) << 16u);
    let mask = CODE_MASK * 0x00010001u;
    return (pairs & mask) | (((pairs >> BITS) & mask) << 8u);
#endif
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
