// y[c] = x[c with coordinate `axis` replaced by indices[c]], counted from the end when negative; 0 when it is
// out of range. @binding(1) x (words), @binding(2) indices, @binding(3) y, shaped like the indices.
// A workgroup of 256 takes 256 elements of y; ceil(count / 256) workgroups. No features.

#include "grid.inc.wgsl"

struct Uniforms {
    count: u32,
    rank: u32, // dims (of indices) and strides (of x) are innermost first
    axis: u32,
    size: u32, // of x along the axis
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
    var index = indices[i];
    if index < 0 {
        index += i32(u.size);
    }
    var at = 0u;
    var rest = i;
    for (var d = 0u; d < u.rank; d++) {
        let dim = u.dims[d >> 2u][d & 3u];
        let coordinate = select(rest % dim, bitcast<u32>(index), d == u.axis);
        rest /= dim;
        at += coordinate * u.strides[d >> 2u][d & 3u];
    }
    if bitcast<u32>(index) < u.size {
        y[i] = x[at];
    } else {
        y[i] = 0u;
    }
}
