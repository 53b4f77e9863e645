// EmbedLayerNormalization's second output: y[r] = how many of mask[r, 0] to mask[r, sequence - 1] are 1,
// or 0 without a mask.
// @binding(1) mask [rows, sequence] where MASK is 1; @binding(2) y [rows]. An invocation takes a row;
// ceil(rows / 256) workgroups of 256. No features.

#param MASK 0 1

#include "grid.inc.wgsl"

struct Uniforms {
    rows: u32,
    sequence: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
#if MASK == 1
@group(0) @binding(1) var<storage, read> mask: array<i32>;
#endif
@group(0) @binding(2) var<storage, read_write> y: array<i32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = grid_index(group, groups) * 256u + lane;
    if row >= u.rows {
        return;
    }
    var count = 0;
#if MASK == 1
    for (var i = 0u; i < u.sequence; i++) {
        count += select(0, 1, mask[row * u.sequence + i] == 1);
    }
#endif
    y[row] = count;
}
