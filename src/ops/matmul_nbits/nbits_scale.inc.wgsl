// scales: [n_count, k_blocks] of float32, float16 or bfloat16, as the file has them.
#param SCALE 0 1 2 // float32, float16, bfloat16
#include "nbits_problem.inc.wgsl"
#include "nbits_float16.inc.wgsl"

@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn scale_at(n: u32, g: u32) -> f32 {
    let i = n * problem.k_blocks + g;
#if SCALE == 0
    return bitcast<f32>(scales[i]);
#elif SCALE == 1
    return float16_of(scales[i / 2u], i);
#else
    return bfloat16_of(scales[i / 2u], i);
#endif
}
