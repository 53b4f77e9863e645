// dibit.Sample: the best of a row's logits, slice by slice, until one slice is left, of which a token is drawn.
// A candidate is a key, which orders logits as unsigned numbers (0: none), and a token.
// FIRST 1: x is logits, row r begins at u.first + r * u.stride; 0: x is candidates, laid out the same.
// HALF 1: logits are rounded to float16. MANY 1: the best 64 of a slice count; 0: the best alone.
// DRAW 0: y [rows, slices, 64 or 1] gets the best candidates of each slice, in order: workgroups
// (slices, rows); DRAW 1: y [rows] gets tokens from u.row on, of rows of at most 1024 elements:
// workgroups (1, rows), at most 8 rows. A workgroup has 256 invocations. No features.
#param FIRST 0 1
#param HALF 0 1
#param MANY 0 1
#param DRAW 0 1

#if FIRST == 0 && HALF == 1
#error candidates are rounded already
#endif

struct Uniforms {
    n: u32, // elements of a row
    stride: u32,
    first: u32,
    row: u32,
    settings: array<vec4<f32>, 8>, // of each row: temperature, top_p, lowest, random
    top_k: array<vec4<u32>, 2>,    // four rows each
}
@group(0) @binding(0) var<uniform> u: Uniforms;
#if FIRST == 1
@group(0) @binding(1) var<storage, read> x: array<f32>;
#else
@group(0) @binding(1) var<storage, read> x: array<vec2<u32>>;
#endif
#if DRAW == 1
@group(0) @binding(2) var<storage, read_write> y: array<i32>;
#else
@group(0) @binding(2) var<storage, read_write> y: array<vec2<u32>>;
#endif

#if HALF == 1
#include "half.inc.wgsl"
#endif

const slice_width = 1024u;
#if MANY == 1
const keep = 64u;
#else
const keep = 1u;
#endif
const none = vec2<u32>(0u, 0xffffffffu);
const infinity_key = 0xff800000u;

var<workgroup> list: array<vec2<u32>, 1024>;

fn better(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y < b.y);
}

// The larger a float, the larger its key; both zeros have the same.
fn key_of(bits: u32) -> u32 {
    if (bits & 0x7fffffffu) == 0u {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

fn candidate(at: u32, i: u32) -> vec2<u32> {
#if FIRST == 1
    var bits = bitcast<u32>(x[at]);
    let nan = (bits & 0x7fffffffu) > 0x7f800000u;
#if HALF == 1
    let half = half_bits(x[at]);
    // Numbers of float16 are normal floats, or 0, or infinite; subnormal ones are multiples of 2^-24.
    let size = half & 0x7fffu;
    bits = select((size << 13u) + 0x38000000u, bitcast<u32>(f32(size) * 0x1p-24), size < 0x400u);
    bits = select(bits, 0x7f800000u, size >= 0x7c00u) | ((half & 0x8000u) << 16u);
#endif
    if nan || bits == 0xff800000u {
        return none;
    }
    return vec2<u32>(key_of(bits), i);
#else
    return x[at];
#endif
}

#if MANY == 1
// Bitonic sort, the best first.
fn arrange(lane: u32) {
    for (var size = 2u; size <= slice_width; size *= 2u) {
        for (var step = size / 2u; step > 0u; step /= 2u) {
            workgroupBarrier();
            for (var pair = lane; pair < slice_width / 2u; pair += 256u) {
                let i = 2u * pair - (pair & (step - 1u));
                let a = list[i];
                let b = list[i + step];
                if better(b, a) == ((i & size) == 0u) {
                    list[i] = b;
                    list[i + step] = a;
                }
            }
        }
    }
    workgroupBarrier();
}
#else
// The best to the front.
fn arrange(lane: u32) {
    for (var half_width = slice_width / 2u; half_width > 0u; half_width /= 2u) {
        workgroupBarrier();
        for (var i = lane; i < half_width; i += 256u) {
            if better(list[i + half_width], list[i]) {
                list[i] = list[i + half_width];
            }
        }
    }
    workgroupBarrier();
}
#endif

#if DRAW == 1
fn weight(i: u32, temperature: f32, top: f32) -> f32 {
    return exp(logit_of(list[i].x) / temperature - top);
}

fn draw(row: u32) -> i32 {
    let settings = u.settings[row];
    let temperature = settings.x;
    let best = list[0];
    if keep == 1u || !(temperature > 0.0) || best.x == 0u || best.x == infinity_key {
        return bitcast<i32>(best.y);
    }
    let top = logit_of(best.x) / temperature;
    var n = 0u;
    var total = 0.0;
    for (; n < u.top_k[row / 4u][row % 4u] && list[n].x != 0u; n++) {
        total += weight(n, temperature, top);
    }
    var count = 1u;
    var kept = weight(0u, temperature, top);
    for (; count < n && kept < settings.y * total; count++) {
        kept += weight(count, temperature, top);
    }
    for (; count > 1u && logit_of(list[count - 1u].x) / temperature < top + settings.z; count--) {
        kept -= weight(count - 1u, temperature, top);
    }
    var left = settings.w * kept - weight(0u, temperature, top);
    var i = 0u;
    for (; left >= 0.0 && i + 1u < count; i++) {
        left -= weight(i + 1u, temperature, top);
    }
    return bitcast<i32>(list[i].y);
}
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let base = u.first + group.y * u.stride;
    for (var i = lane; i < slice_width; i += 256u) {
        let at = group.x * slice_width + i;
        list[i] = none;
        if at < u.n {
            list[i] = candidate(base + at, at);
        }
    }
    arrange(lane);
#if DRAW == 1
    if lane == 0u {
        y[u.row + group.y] = draw(group.y);
    }
#else
    if lane < keep {
        y[(group.y * groups.x + group.x) * keep + lane] = list[lane];
    }
#endif
}
