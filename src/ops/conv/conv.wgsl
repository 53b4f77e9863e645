// Conv of 1 to 3 spatial axes (conv.c): y[n, m, o...] = bias[m] + sum over c, k... of w[m, c, k...] * x[n, group's
// c, o * stride - pad + k * dilation]. Fewer axes than 3 have leading ones of size 1.
// @binding(1) x [N, channels, in...], @binding(2) w [M, per_group, kernel...], @binding(3) bias [M] with BIAS 1,
// @binding(4) y [N, M, out...]. A workgroup of 256 takes 256 elements of y; ceil(count / 256) workgroups. No
// features.
#param BIAS 0 1

#include "grid.inc.wgsl"

struct Uniforms {
    count: u32,
    channels: u32,
    filters: u32,
    per_group: u32, // channels that a filter sees
    filters_per_group: u32,
    in_size: vec3<u32>,
    out_size: vec3<u32>,
    kernel: vec3<u32>,
    stride: vec3<u32>,
    dilation: vec3<u32>,
    pad: vec3<u32>,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
#if BIAS == 1
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// The sum over a channel's taps; x and w are where its elements begin.
fn channel_sum(x_begin: u32, w_begin: u32, out: vec3<u32>) -> f32 {
    var sum = 0.0;
    var tap = w_begin;
    // Unsigned: what lies before the input wraps around and is beyond it.
    let first = out * u.stride - u.pad;
    for (var k0 = 0u; k0 < u.kernel.x; k0++) {
        let p0 = first.x + k0 * u.dilation.x;
        for (var k1 = 0u; k1 < u.kernel.y; k1++) {
            let p1 = first.y + k1 * u.dilation.y;
            for (var k2 = 0u; k2 < u.kernel.z; k2++) {
                let p = vec3<u32>(p0, p1, first.z + k2 * u.dilation.z);
                if all(p < u.in_size) {
                    sum += w[tap] * x[x_begin + (p.x * u.in_size.y + p.y) * u.in_size.z + p.z];
                }
                tap++;
            }
        }
    }
    return sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
    let out = vec3<u32>(i / (u.out_size.y * u.out_size.z) % u.out_size.x, i / u.out_size.z % u.out_size.y,
                        i % u.out_size.z);
    let map = i / (u.out_size.x * u.out_size.y * u.out_size.z);
    let m = map % u.filters;
    let x_size = u.in_size.x * u.in_size.y * u.in_size.z;
    let taps = u.kernel.x * u.kernel.y * u.kernel.z;
    let channel = map / u.filters * u.channels + m / u.filters_per_group * u.per_group;
#if BIAS == 1
    var sum = bias[m];
#else
    var sum = 0.0;
#endif
    for (var c = 0u; c < u.per_group; c++) {
        sum += channel_sum((channel + c) * x_size, (m * u.per_group + c) * taps, out);
    }
    y[i] = sum;
}
