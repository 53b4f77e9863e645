// A mask of integers or truths as a term that is added to scores: 0 where a key counts, else `filler`.
// @binding(0) uniforms; (1) mask; (2) out [batch, rows, total], floats' bits. FORM 0: lengths [batch],
// then, with `starts`, where keys begin [batch]; 1: element b * batch_stride + (row + first_row) *
// row_stride + t is above 0 where key t counts. A thread takes an element. Workgroup 256;
// ceil(batch * rows * total / 256) workgroups. No features.

#param FORM 0 1

#include "grid.inc.wgsl"

struct Uniforms {
    count: u32, // batch * rows * total
    rows: u32,
    total: u32,
    batch: u32,
    starts: u32,
    batch_stride: u32,
    row_stride: u32,
    first_row: u32,
    filler: u32, // bits of a float, which may be infinite
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> mask: array<i32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) size: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let i = grid_index(id, size) * 256u + thread;
    if i >= u.count {
        return;
    }
    let t = i % u.total;
    let row = i / u.total % u.rows;
    let b = i / u.total / u.rows;
#if FORM == 0
    var counts = i32(t) < mask[b];
    if u.starts == 1u {
        counts = counts && i32(t) >= mask[u.batch + b];
    }
#else
    let counts = mask[b * u.batch_stride + (row + u.first_row) * u.row_stride + t] > 0;
#endif
    y[i] = select(u.filler, 0u, counts);
}
