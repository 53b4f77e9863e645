// What becomes of a sum on its way to Y, which has the columns of the whole problem.
#param BIAS 0 1
#param EPILOGUE 0..3 // none, + other, * silu(other), * gelu(other) with tanh
#include "nbits_problem.inc.wgsl"
#if EPILOGUE >= 2
#include "math.inc.wgsl"
#endif

#if BIAS == 1
@group(0) @binding(5) var<storage, read> bias: array<f32>; // [N], or of all rows of B
#endif
@group(0) @binding(7) var<storage, read_write> y: array<f32>; // [M, N]

#if EPILOGUE == 2
fn gate(h: f32) -> f32 {
    return h * math_sigmoid(h);
}
#elif EPILOGUE == 3
fn gate(h: f32) -> f32 {
    return math_fast_gelu(h);
}
#endif

#if defined GATE && GATE == 1
fn store_gated(m: u32, column: u32, first: f32, second: f32) {
    var h = first;
    var value = second;
#if BIAS == 1
    h += bias[column];
    value += bias[problem.second_row + column];
#endif
    y[m * problem.N + column] = value * gate(h);
}
#else
#if EPILOGUE != 0
@group(0) @binding(9) var<storage, read> other: array<f32>; // [M, N]
#endif

fn store_y(m: u32, column: u32, sum: f32) {
    let at = m * problem.N + column;
    var value = sum;
#if BIAS == 1
    value += bias[column];
#endif
#if EPILOGUE == 1
    value += other[at];
#elif EPILOGUE >= 2
    value *= gate(other[at]);
#endif
    y[at] = value;
}

// Four columns from first_n of the part on, as far as there are.
fn store_row(m: u32, first_n: u32, sum: vec4<f32>) {
    for (var j = 0u; j < 4u && m < problem.M && first_n + j < problem.n_count; j++) {
        store_y(m, problem.n_begin + first_n + j, sum[j]);
    }
}
#endif
