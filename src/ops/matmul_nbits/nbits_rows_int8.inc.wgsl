// Four rows of B for dots with int8 activations.
#include "nbits_block.inc.wgsl"
#include "nbits_int8_zero.inc.wgsl"
#include "nbits_rows.inc.wgsl"

fn packed_rows(rows: Rows, q: u32) -> vec4<u32> {
    return vec4<u32>(pack_quad(quad_of(rows.u0, q), q), pack_quad(quad_of(rows.u1, q), q),
                     pack_quad(quad_of(rows.u2, q), q), pack_quad(quad_of(rows.u3, q), q));
}

// What a block's dots take, of four rows.
struct Block {
    whole: vec4<i32>, // zero points, as in ZeroPoint
    rest: vec4<f32>,
    scale: vec4<f32>,
}

fn load_block(n: vec4<u32>, g: u32) -> Block {
    let z0 = split_zero_point(n.x, g);
    let z1 = split_zero_point(n.y, g);
    let z2 = split_zero_point(n.z, g);
    let z3 = split_zero_point(n.w, g);
    return Block(vec4<i32>(z0.whole, z1.whole, z2.whole, z3.whole),
                 vec4<f32>(z0.rest, z1.rest, z2.rest, z3.rest), scales_at(n, g));
}

// Dots of a block's codes, for which A's numbers have that sum, without its zero points.
fn block_dots(dots: vec4<i32>, sum: i32, block: Block) -> vec4<f32> {
    var dot = vec4<f32>(dots - sum * block.whole);
#if ZERO_POINT >= 2
    dot -= f32(sum) * block.rest;
#endif
    return dot;
}
