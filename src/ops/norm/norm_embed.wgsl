// s[r] = word[ids[r]] + position[...] + segment[segment_ids[r]], rows of n: what EmbedLayerNormalization
// normalizes. Ids outside a table add nothing.
// @binding(1) ids [rows]; @binding(2) word [words, n]; @binding(3) position [positions, n];
// @binding(4) s [rows, n]; @binding(5) position_ids [n_position_ids] where POSITION_IDS is 1, else row r
// has position r % sequence; @binding(6) segment_ids [rows], @binding(7) segment [segments, n] where
// SEGMENTS is 1. A workgroup of 256 takes 256 elements of s; ceil(rows * n / 256) workgroups. No features.

#param POSITION_IDS 0 1
#param SEGMENTS 0 1

#include "grid.inc.wgsl"

struct Uniforms {
    rows: u32,
    n: u32,
    words: u32,
    positions: u32,
    segments: u32,
    position_period: u32, // n_position_ids, or sequence
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> ids: array<i32>;
@group(0) @binding(2) var<storage, read> word: array<f32>;
@group(0) @binding(3) var<storage, read> position: array<f32>;
@group(0) @binding(4) var<storage, read_write> s: array<f32>;
#if POSITION_IDS == 1
@group(0) @binding(5) var<storage, read> position_ids: array<i32>;
#endif
#if SEGMENTS == 1
@group(0) @binding(6) var<storage, read> segment_ids: array<i32>;
@group(0) @binding(7) var<storage, read> segment: array<f32>;
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let at = grid_index(group, groups) * 256u + lane;
    if at >= u.rows * u.n {
        return;
    }
    let row = at / u.n;
    let i = at % u.n;
    var sum = 0.0;
    let id = u32(ids[row]);
    if id < u.words {
        sum = word[id * u.n + i];
    }
    var place = row % u.position_period;
#if POSITION_IDS == 1
    place = u32(position_ids[place]);
#endif
    if place < u.positions {
        sum += position[place * u.n + i];
    }
#if SEGMENTS == 1
    let side = u32(segment_ids[row]);
    if side < u.segments {
        sum += segment[side * u.n + i];
    }
#endif
    s[at] = sum;
}
