// scales: [n_count, k_blocks] of float32, float16 or bfloat16, as the file has them.
#param SCALE 0 1 2 // float32, float16, bfloat16
#include "nbits_problem.inc.wgsl"
#include "nbits_trace.inc.wgsl"
#include "nbits_float16.inc.wgsl"

@group(0) @binding(3) var<storage, read> scales: array<u32>;

#if SCALE == 0
const SCALE_BYTES = 4u;
#else
const SCALE_BYTES = 2u;
#endif

fn scale_at(n: u32, g: u32) -> f32 {
    let i = n * problem.k_blocks + g;
#if SCALE == 0
    let scale = bitcast<f32>(scales[i]);
#elif SCALE == 1
    let scale = float16_of(scales[i / 2u], i);
#else
    let scale = bfloat16_of(scales[i / 2u], i);
#endif
#if TRACE == 1
    trace_scale(n, g, SCALE_BYTES * i, scale);
#endif
    return scale;
}
