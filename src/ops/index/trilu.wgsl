// One triangle of matrices; the other is 0. @binding(1) x (words) [batch, rows, columns], @binding(2) y like it.
// Row r keeps its columns from r + diagonal on (UPPER 1), or those before it (UPPER 0).
// A workgroup of 256 takes 256 elements; ceil(count / 256) workgroups. No features.

#param UPPER 0 1

#include "grid.inc.wgsl"

struct Uniforms {
    count: u32,
    rows: u32,
    columns: u32,
    diagonal: i32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
    let column = bitcast<i32>(i % u.columns);
    let first = bitcast<i32>(i / u.columns % u.rows) + u.diagonal;
#if UPPER == 1
    let kept = column >= first;
#else
    let kept = column < first;
#endif
    y[i] = select(0u, x[i], kept);
}
