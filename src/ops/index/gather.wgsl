// Gather and GatherND: y[b, r, j] = x[b * x_batch + sum over k of index(b, r, k) * strides[k] + j], where
// index(b, r, k) = indices[b * index_batch + r * depth + k], counted from the end when negative. Out of range:
// 0. @binding(1) x, words or as the file has them, @binding(2) indices, @binding(3) y [batches, rows, inner].
// VEC 4: x and y in groups of four along inner; count, inner and strides are of groups.
// A workgroup of 256 takes 256 elements (or groups) of y; ceil(count / 256) workgroups. No features.

#param VEC 1 4

#include "grid.inc.wgsl"
#include "raw.inc.wgsl"

#if VEC == 4
#if RAW != 0
#error groups of four are of words
#endif
alias Element = vec4<u32>;
#else
alias Element = u32;
#endif

struct Uniforms {
    count: u32,
    inner: u32,
    rows: u32, // of a batch
    depth: u32,
    x_batch: u32,
    index_batch: u32,
    unused: vec2<u32>,
    sizes: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> indices: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
    let row = i / u.inner;
    let batch = row / u.rows;
    let first = batch * u.index_batch + row % u.rows * u.depth;
    var at = batch * u.x_batch + i % u.inner;
    var inside = true;
    for (var k = 0u; k < u.depth; k++) {
        let size = u.sizes[k >> 2u][k & 3u];
        var index = indices[first + k];
        if index < 0 {
            index += i32(size);
        }
        inside = inside && bitcast<u32>(index) < size;
        at += bitcast<u32>(index) * u.strides[k >> 2u][k & 3u];
    }
    if !inside {
        y[i] = Element(0);
        return;
    }
#if VEC == 4
    y[i] = x[at];
#else
    y[i] = raw_word(x[raw_index(at)], at);
#endif
}
