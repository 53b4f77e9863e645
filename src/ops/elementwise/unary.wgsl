// y[i] = f(x[i]): the unary elementwise ops; unary_gpu.c has the table of what OP means.
// @binding(1) x [count] and @binding(2) y [count], in elements of VEC words. A workgroup of 256 takes 256
// of them; ceil(count / 256) workgroups. No features.

// 1 to 34: float to float; 40, 41: float to bool; 50 to 55: words to words.
#param OP 1..34 40 41 50..55
#param VEC 1 4

#include "map.inc.wgsl"
#include "narrow.inc.wgsl"
#include "math.inc.wgsl"
#if OP >= 11 && OP <= 13
#include "trigonometry.inc.wgsl"
#endif

struct Uniforms {
    count: u32,
    alpha: f32,
    beta: f32,
    mask: u32,  // of an integer type of fewer than 32 bits, and the shift
    shift: u32, // that spreads its sign
}
@group(0) @binding(0) var<uniform> u: Uniforms;

#if OP < 50
alias X = f32;
#else
alias X = i32;
#endif
#if OP < 40
alias Y = f32;
#else
alias Y = i32;
#endif

fn clamp01(x: f32) -> f32 {
    return min(max(x, 0.0), 1.0);
}

fn negative_elu(x: f32) -> f32 {
    return math_expm1(min(x, 0.0));
}

fn mish(x: f32) -> f32 {
    let e = math_exp(min(x, 20.0));
    let t = e * (e + 2.0);
    return x * (t / (t + 2.0));
}

fn f(x: X) -> Y {
#if OP == 1
    return abs(x);
#elif OP == 2
    return -x;
#elif OP == 3
    return select(sign(x), x, is_nan(x));
#elif OP == 4
    return floor(x);
#elif OP == 5
    return ceil(x);
#elif OP == 6
    return round(x);
#elif OP == 7
    return sqrt(x);
#elif OP == 8
    return 1.0 / x;
#elif OP == 9
    return math_exp(x);
#elif OP == 10
    return math_log(x);
#elif OP == 11
    return math_sin(x);
#elif OP == 12
    return math_cos(x);
#elif OP == 13
    return math_sin(x) / math_cos(x);
#elif OP == 14
    return math_tanh(x);
#elif OP == 15
    return math_sigmoid(x);
#elif OP == 16
    return clamp01(fma(u.alpha, x, u.beta));
#elif OP == 17
    return x * clamp01(fma(x, 1.0 / 6.0, 0.5));
#elif OP == 18
    return select(x, 0.0, x < 0.0);
#elif OP == 19
    return select(x, u.alpha * x, x < 0.0);
#elif OP == 20
    return select(0.0, x, x > u.alpha);
#elif OP == 21
    return select(x, u.alpha * negative_elu(x), x < 0.0);
#elif OP == 22
    return u.beta * select(x, u.alpha * negative_elu(x), x < 0.0);
#elif OP == 23
    return select(x, u.alpha * negative_elu(x / u.alpha), x < 0.0);
#elif OP == 24
    return max(x, 0.0) + math_log1p(math_exp(-abs(x)));
#elif OP == 25
    return x / (1.0 + abs(x));
#elif OP == 26
    return mish(x);
#elif OP == 27
    return x * math_sigmoid(u.alpha * x);
#elif OP == 28
    return math_erf(x);
#elif OP == 29
    return math_gelu(x);
#elif OP == 30
    return math_fast_gelu(x);
#elif OP == 31 // Clip: the upper limit wins, NaN stays
    return select(min(max(x, u.alpha), u.beta), x, is_nan(x));
#elif OP == 32
    return x * x;
#elif OP == 33
    return x * x * x;
#elif OP == 34
    return 1.0 / sqrt(x);
#elif OP == 40
    return select(0, 1, is_nan(x));
#elif OP == 41 // alpha, beta: whether -inf, inf count
    let bits = bitcast<u32>(x);
    return select(0, 1, (bits == 0x7f800000u && u.beta != 0.0) || (bits == 0xff800000u && u.alpha != 0.0));
#elif OP == 50
    return narrow(abs(x));
#elif OP == 51
    return narrow(-x);
#elif OP == 52
    return sign(x);
#elif OP == 53
    return max(x, 0);
#elif OP == 54
    return narrow(~x);
#elif OP == 55
    return select(0, 1, x == 0);
#endif
}
