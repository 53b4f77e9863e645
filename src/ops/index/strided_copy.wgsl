// The copy between strided arrays that most moving ops are (strided_copy.c); elements are words.
// @binding(1) src, @binding(2) dst, whole arrays. VEC 4: their innermost dim goes in groups of four; count,
// dims, strides and beginnings are of groups. Strides may be negative: indices wrap around 2^32.
// A workgroup of 256 takes 256 elements (or groups); ceil(count / 256) workgroups. No features.

#param VEC 1 4

#include "grid.inc.wgsl"

#if VEC == 4
alias Element = vec4<u32>;
#else
alias Element = u32;
#endif

struct Uniforms {
    count: u32,
    rank: u32, // dims and strides are innermost first
    dst_at: u32,
    src_at: u32,
    dims: array<vec4<u32>, 4>,
    dst_strides: array<vec4<u32>, 4>,
    src_strides: array<vec4<u32>, 4>,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> src: array<Element>;
@group(0) @binding(2) var<storage, read_write> dst: array<Element>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
    var to = u.dst_at;
    var at = u.src_at;
    var rest = i;
    for (var d = 0u; d < u.rank; d++) {
        let dim = u.dims[d >> 2u][d & 3u];
        let index = rest % dim;
        rest /= dim;
        to += index * u.dst_strides[d >> 2u][d & 3u];
        at += index * u.src_strides[d >> 2u][d & 3u];
    }
    dst[to] = src[at];
}
