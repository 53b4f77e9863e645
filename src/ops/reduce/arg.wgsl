// ArgMax and ArgMin over the middle axis of x [outer, n, inner], n > 0: y is the index of the largest (LEAST
// 0) or smallest element, the first of equal ones or (LAST 1) the last. As on the CPU, NaN is found
// only in the first place.
// @binding(1) x, @binding(2) y [lines], lines = outer * inner. WIDE 1: a workgroup of 256 takes a line;
// WIDE 0: an invocation does, ceil(lines / 256) workgroups. No features.

// TYPE 0: floats, 1: integers.
#param TYPE 0 1
#param LEAST 0 1
#param LAST 0 1
#param WIDE 0 1

#include "grid.inc.wgsl"
#include "wide.inc.wgsl"

struct Uniforms {
    lines: u32,
    n: u32,
    inner: u32,
}
@group(0) @binding(0) var<uniform> u: Uniforms;

#if TYPE == 0
alias T = f32;
#else
alias T = i32;
#endif
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<i32>;

const none = 0xffffffffu; // no element yet

struct Best {
    value: T,
    index: u32,
}

fn is_number(v: T) -> bool {
#if TYPE == 0
    return (bitcast<u32>(v) & 0x7fffffffu) <= 0x7f800000u;
#else
    return true;
#endif
}

fn better(a: Best, b: Best) -> Best {
    if b.index == none {
        return a;
    }
#if LEAST == 1
    let wins = b.value < a.value;
#else
    let wins = b.value > a.value;
#endif
#if LAST == 1
    let first = b.index > a.index;
#else
    let first = b.index < a.index;
#endif
    if a.index == none || wins || (b.value == a.value && first) {
        return b;
    }
    return a;
}

#if WIDE == 1
var<workgroup> lanes: array<Best, 256>;
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let line = result_of(grid_index(group, groups), lane);
    let first = first_of(lane);
    if line >= u.lines {
        return;
    }
    let base = line / u.inner * u.n * u.inner + line % u.inner;
    var best = Best(T(0), none);
    for (var k = first; k < u.n; k += step) {
        let v = x[base + k * u.inner];
        if is_number(v) {
            best = better(best, Best(v, k));
        }
    }
#if WIDE == 1
    lanes[lane] = best;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            lanes[lane] = better(lanes[lane], lanes[lane + half]);
        }
    }
    best = lanes[0]; // lane 0 wrote it
    if lane != 0u {
        return;
    }
#endif
    y[line] = select(0, i32(best.index), is_number(x[base]));
}
