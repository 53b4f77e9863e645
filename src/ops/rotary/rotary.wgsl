// RotaryEmbedding and MRotaryEmbedding: every head's row turned by its token's position.
// @binding(0) uniforms; (1) x, (2) y at b * batch_stride + h * head_stride + s * token_stride; (3), (4)
// cosines and sines [rows, half]; (5) positions [streams, tokens], or any buffer. A thread takes an
// element. Workgroup 256; ceil(count / 256) workgroups. No features.

#include "grid.inc.wgsl"
#include "rotary.inc.wgsl"

struct Uniforms {
    rotary: Rotary,
    @align(16) count: u32, // elements
    dim: u32,
    heads: u32,
    tokens: u32, // of a batch row
    head_stride: u32,
    token_stride: u32,
    position: u32,      // of token 0 of every batch row, where there are no positions
    position_stride: u32, // of batch rows, likewise
    has_positions: u32,
    n_positions: u32, // of one stream
    interleaved: u32, // how pairs go to the streams of an MRotaryEmbedding: 0 by sections
    sections: vec3<u32>,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> cosines: array<f32>;
@group(0) @binding(4) var<storage, read> sines: array<f32>;
@group(0) @binding(5) var<storage, read> positions: array<i32>;

// Which of a token's positions turns a pair.
fn stream(pair: u32) -> u32 {
    if u.interleaved == 0u {
        return select(select(2u, 1u, pair < u.sections.x + u.sections.y), 0u, pair < u.sections.x);
    }
    return select(0u, pair % 3u, pair < 3u * u.sections[pair % 3u]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) size: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let i = grid_index(id, size) * 256u + thread;
    if i >= u.count {
        return;
    }
    let d = i % u.dim;
    let row = i / u.dim;
    let h = row % u.heads;
    let token = row / u.heads;
    let b = token / u.tokens;
    let s = token % u.tokens;
    let at = b * u.tokens * u.heads * u.dim + h * u.head_stride + s * u.token_stride;
    if d >= 2u * u.rotary.half {
        y[at + d] = x[at + d];
        return;
    }
    let turn = rotary_turn(u.rotary, d);
    var position = u.position + b * u.position_stride + s;
    if u.has_positions == 1u {
        position = u32(positions[stream(turn.pair) * u.n_positions + token]);
    }
    let angle = position * u.rotary.half + turn.pair;
    y[at + d] = rotary_turned(turn, x[at + d], x[at + turn.partner], cosines[angle], sines[angle]);
}
