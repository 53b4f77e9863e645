// Softmax (KIND 0), LogSoftmax (1) and Hardmax (2) over the middle axis of x [outer, n, inner].
// @binding(1) x, @binding(2) y. ROWS 1 (inner is 1; not Hardmax): a workgroup of 256 takes a row; `lines`
// workgroups. ROWS 0: an invocation takes a line of n elements; ceil(lines / 256) workgroups,
// lines = outer * inner. No features.

#param KIND 0..2
#param ROWS 0 1
#if KIND == 2 && ROWS == 1
#error Hardmax has a line to an invocation
#endif

const LANES = 256;
#include "grid.inc.wgsl"
#include "math.inc.wgsl"
#include "workgroup.inc.wgsl"

struct Uniforms {
    lines: u32,
    n: u32,
    inner: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let unit = grid_index(group, groups);
#if ROWS == 1
    let line = unit;
    let first = line * u.n + lane;
    let step = 256u;
    let stop = (line + 1u) * u.n;
#else
    let line = unit * 256u + lane;
    let first = line / u.inner * u.n * u.inner + line % u.inner;
    let step = u.inner;
    let stop = first + u.n * u.inner;
#endif
    if line >= u.lines {
        return;
    }
    var largest = x[line / u.inner * u.n * u.inner + line % u.inner];
    for (var i = first; i < stop; i += step) {
        largest = max(largest, x[i]);
    }
#if ROWS == 1
    largest = workgroup_max(lane, largest);
#endif
#if KIND == 2
    var found = false;
    for (var i = first; i < stop; i += step) {
        let hit = !found && (x[i] == largest || i + step >= stop);
        found = found || hit;
        y[i] = select(0.0, 1.0, hit);
    }
#else
    var sum = 0.0;
    for (var i = first; i < stop; i += step) {
        sum += math_exp(x[i] - largest);
    }
#if ROWS == 1
    sum = workgroup_sum(lane, sum);
#endif
#if KIND == 0
    let scale = 1.0 / sum;
    for (var i = first; i < stop; i += step) {
        y[i] = math_exp(x[i] - largest) * scale;
    }
#else
    let log_sum = math_log(sum);
    for (var i = first; i < stop; i += step) {
        y[i] = (x[i] - largest) - log_sum;
    }
#endif
#endif
}
