// y = condition ? a : b, broadcast, of elements of any type: their words are moved.
// @binding(1) condition (bools), @binding(2) a, @binding(3) b, @binding(4) y [count]. A workgroup of 256
// takes 256 elements; ceil(count / 256) workgroups. No features.

#include "grid.inc.wgsl"
#include "broadcast.inc.wgsl"

struct Uniforms {
    shape: Broadcast,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> condition: array<i32>;
@group(0) @binding(2) var<storage, read> a: array<u32>;
@group(0) @binding(3) var<storage, read> b: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.shape.count {
        return;
    }
    let at = sources_of(i);
    y[i] = select(b[at.z], a[at.y], condition[at.x] != 0);
}
