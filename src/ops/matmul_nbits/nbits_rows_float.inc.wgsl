// Weights of four rows of B, in float.
#include "nbits_rows.inc.wgsl"
#include "nbits_weights.inc.wgsl"

// What a block's weights take, of four rows.
struct Block {
    offset: vec4<f32>,
    scale: vec4<f32>,
}

#if G_IDX == 1
// Weights come with their scales.
fn load_block(n: vec4<u32>, g: u32) -> Block {
    return Block(vec4<f32>(), vec4<f32>(1.0));
}

// Codes 4q to 4q + 3 of unit u of row n as weights, but for the block's scale.
fn block_weights(u: Unit, n: u32, unit: u32, q: u32, offset: f32) -> vec4<f32> {
    return weights_of_groups(quad_of(u, q), n, unit, q);
}
#else
fn load_block(n: vec4<u32>, g: u32) -> Block {
    return Block(vec4<f32>(weight_offset(n.x, g), weight_offset(n.y, g), weight_offset(n.z, g),
                           weight_offset(n.w, g)),
                 scales_at(n, g));
}

fn block_weights(u: Unit, n: u32, unit: u32, q: u32, offset: f32) -> vec4<f32> {
    return weights(quad_of(u, q), q, offset);
}
#endif
