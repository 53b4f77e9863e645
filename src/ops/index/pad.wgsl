// Pad: along each axis output i shows input low + map(i - before), where [low, low + length) of the input is
// left after cropping. @binding(1) x (words), @binding(2) y, with VALUE 1 @binding(3) the constant.
// A workgroup of 256 takes 256 elements of y; ceil(count / 256) workgroups. No features.

#param MODE 0..3 // constant, reflect, edge, wrap
#param VALUE 0 1 // in a buffer rather than 0

#include "grid.inc.wgsl"

struct Uniforms {
    count: u32,
    rank: u32, // dims of y, strides of x, and so on, are innermost first
    value: u32, // with VALUE 0
    unused: u32,
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
    before: array<vec4<i32>, 2>,
    low: array<vec4<i32>, 2>,
    length: array<vec4<i32>, 2>,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
#if VALUE == 1
@group(0) @binding(3) var<storage, read> value: array<u32>;
#endif

// Where in [0, n) the frame's element i lies; n > 0.
fn mapped(i: i32, n: i32) -> i32 {
#if MODE == 1
    if n == 1 {
        return 0;
    }
    let period = 2 * (n - 1);
    let at = (i % period + period) % period;
    return select(at, period - at, at >= n);
#elif MODE == 2
    return clamp(i, 0, n - 1);
#else
    return (i % n + n) % n;
#endif
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
    var at = 0u;
    var inside = true;
    var rest = i;
    for (var d = 0u; d < u.rank; d++) {
        let dim = u.dims[d >> 2u][d & 3u];
        let n = u.length[d >> 2u][d & 3u];
        var index = bitcast<i32>(rest % dim) - u.before[d >> 2u][d & 3u];
        rest /= dim;
        if index < 0 || index >= n {
#if MODE == 0
            inside = false;
#else
            index = mapped(index, n);
#endif
        }
        at += bitcast<u32>(index + u.low[d >> 2u][d & 3u]) * u.strides[d >> 2u][d & 3u];
    }
    if inside {
        y[i] = x[at];
    } else {
#if VALUE == 1
        y[i] = value[0];
#else
        y[i] = u.value;
#endif
    }
}
