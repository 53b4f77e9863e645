// Puts the parts of attention_few.wgsl together. A workgroup of 64 takes one row of a head; at most 64 parts.
// @binding(1) what it left; otherwise as attention.inc.wgsl says.
// Dispatch: heads * rows workgroups. No features.

#include "attention.inc.wgsl"
#include "grid.inc.wgsl"

@group(0) @binding(1) var<storage, read> results: array<f32>;

var<workgroup> tops: array<f32, 64>;
var<workgroup> shares: array<f32, 64>; // what a part is multiplied by
var<workgroup> sums: array<f32, 64>;   // of its weights, so multiplied

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) size: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let unit = grid_index(id, size);
    if unit >= u.heads * u.rows {
        return;
    }
    let row = unit % u.rows;
    let h = unit / u.rows * u.group + row % u.group;
    let stride = u.v_dim + 2u;
    let first = unit * u.parts * stride;
    let own = first + thread * stride + u.v_dim;
    if thread < u.parts {
        tops[thread] = results[own];
    }
    workgroupBarrier();
    var top = UNSEEN;
    for (var p = 0u; p < u.parts; p++) {
        top = max(top, tops[p]);
    }
    if thread < u.parts {
        shares[thread] = shrink(tops[thread], top);
        sums[thread] = results[own + 1u] * shares[thread];
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var p = 0u; p < u.parts; p++) {
        sum += sums[p];
    }
    let factor = normalizer(h, top, sum);
    let to = u.y.base + h * u.y.head + row / u.group * u.y.token;
    for (var d = thread; d < u.v_dim; d += 64u) {
        var total = 0.0;
        for (var p = 0u; p < u.parts; p++) {
            total += shares[p] * results[first + p * stride + d];
        }
        y[to + d] = total * factor;
    }
}
