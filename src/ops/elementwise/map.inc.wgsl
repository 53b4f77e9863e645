// y = f(x) for each element: X, Y, f and u.count are the shader's that includes this, and VEC.
// @binding(1) x, @binding(2) y. A workgroup of 256 takes 256 * VEC elements; ceil(count / 256) workgroups.
#include "grid.inc.wgsl"

#if VEC == 4
@group(0) @binding(1) var<storage, read> x: array<vec4<X>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<Y>>;
#else
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read_write> y: array<Y>;
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
    let v = x[i];
#if VEC == 4
    y[i] = vec4<Y>(f(v.x), f(v.y), f(v.z), f(v.w));
#else
    y[i] = f(v);
#endif
}
