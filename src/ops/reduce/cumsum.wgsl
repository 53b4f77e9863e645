// CumSum over the middle axis of x [outer, n, inner], in order.
// @binding(1) x, @binding(2) y. An invocation takes a line; lines = outer * inner, ceil(lines / 256)
// workgroups of 256. No features.

// TYPE 0: floats, 1: integers.
#param TYPE 0 1

#include "grid.inc.wgsl"

struct Uniforms {
    lines: u32,
    n: u32,
    inner: u32,
    exclusive: u32,
    reverse: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;

#if TYPE == 0
alias T = f32;
#else
alias T = i32;
#endif
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let line = grid_index(group, groups) * 256u + lane;
    if line >= u.lines {
        return;
    }
    let base = line / u.inner * u.n * u.inner + line % u.inner;
    var sum = T(0);
    for (var k = 0u; k < u.n; k++) {
        let i = base + select(k, u.n - 1u - k, u.reverse != 0u) * u.inner;
        let before = sum;
        sum += x[i];
        y[i] = select(sum, before, u.exclusive != 0u);
    }
}
