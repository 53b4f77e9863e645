// What becomes of a sum on its way to Y, which has the columns of the whole problem.
#param BIAS 0 1
#param EPILOGUE 0..3 // none, + other, * silu(other), * gelu(other) with tanh
#include "nbits_problem.inc.wgsl"
#if EPILOGUE >= 2
#include "math.inc.wgsl"
#endif

#if BIAS == 1
@group(0) @binding(5) var<storage, read> bias: array<f32>; // [N]
#endif
@group(0) @binding(7) var<storage, read_write> y: array<f32>; // [M, N]
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
#elif EPILOGUE == 2
    let h = other[at];
    value *= h * math_sigmoid(h);
#elif EPILOGUE == 3
    value *= math_fast_gelu(other[at]);
#endif
    y[at] = value;
}
