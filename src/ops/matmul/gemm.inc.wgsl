// What the shaders of a matrix product share: y[b] = alpha * A[b] B[b] + beta * C for matrices of any strides.
// @binding(1) a (floats), @binding(2) b (RAW: as the file has it), @binding(3) c with C 1, @binding(4) y
// [batches, M, N].
#param C 0 1

#include "grid.inc.wgsl"
#include "raw.inc.wgsl"
#if RAW > 2
#error matrices are of floats
#endif

struct Problem {
    M: u32,
    N: u32,
    K: u32,
    n_batches: u32,
    a_m: u32, // strides in elements
    a_k: u32,
    b_k: u32,
    b_n: u32,
    c_m: u32,
    c_n: u32,
    alpha: f32,
    beta: f32,
    batch_rank: u32,
    batch_dims: array<vec4<u32>, 2>, // innermost first
    a_batch: array<vec4<u32>, 2>,
    b_batch: array<vec4<u32>, 2>,
}
@group(0) @binding(0) var<uniform> u: Problem;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<u32>;
#if C == 1
@group(0) @binding(3) var<storage, read> c: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Where a batch's matrices begin, in a, b and y.
fn batch_begins(batch: u32) -> vec3<u32> {
    var at = vec3<u32>(0u, 0u, batch * u.M * u.N);
    var rest = batch;
    for (var d = 0u; d < u.batch_rank; d++) {
        let dim = u.batch_dims[d >> 2u][d & 3u];
        let index = rest % dim;
        rest /= dim;
        at.x += index * u.a_batch[d >> 2u][d & 3u];
        at.y += index * u.b_batch[d >> 2u][d & 3u];
    }
    return at;
}

// Elements of a batch's A and B; beyond them 0.
fn a_at(begins: vec3<u32>, m: u32, k: u32) -> f32 {
    if m >= u.M || k >= u.K {
        return 0.0;
    }
    return a[begins.x + m * u.a_m + k * u.a_k];
}

fn b_at(begins: vec3<u32>, k: u32, n: u32) -> f32 {
    if k >= u.K || n >= u.N {
        return 0.0;
    }
    let i = begins.y + k * u.b_k + n * u.b_n;
    return bitcast<f32>(raw_word(b[raw_index(i)], i));
}

fn store(begins: vec3<u32>, m: u32, n: u32, sum: f32) {
    if m >= u.M || n >= u.N {
        return;
    }
#if C == 1
    y[begins.z + m * u.N + n] = u.alpha * sum + u.beta * c[m * u.c_m + n * u.c_n];
#else
    y[begins.z + m * u.N + n] = u.alpha * sum;
#endif
}
