// Zero points: none, packed codes [n_count, zero_row_bytes] whose rows begin on a byte, or floats
// [n_count, k_blocks].
#param ZERO_POINT 0 1 2 3 4 // none, packed, float32, float16, bfloat16
#include "nbits_problem.inc.wgsl"
#include "nbits_trace.inc.wgsl"
#include "nbits_unpack.inc.wgsl"
#include "nbits_float16.inc.wgsl"

#if ZERO_POINT != 0
@group(0) @binding(4) var<storage, read> zero_points: array<u32>;
#endif

#if ZERO_POINT == 2
const ZERO_BYTES = 4u;
#elif ZERO_POINT > 2
const ZERO_BYTES = 2u;
#endif

#if ZERO_POINT <= 1
fn zero_point_code(n: u32, g: u32) -> u32 {
#if ZERO_POINT == 0
    let code = 1u << (BITS - 1u);
#if TRACE == 1
    trace_zero_point(n, TRACE_NONE, TRACE_NONE, TRACE_NONE, f32(code));
#endif
    return code;
#else
    let byte = n * problem.zero_row_bytes + (g * BITS) / 8u;
    let shift = byte % 4u * 8u + g * BITS % 8u;
    var bits = zero_points[byte / 4u] >> shift;
#if BITS != 1 && BITS != 2 && BITS != 4 && BITS != 8
    if (shift + BITS > 32u) {
        bits |= zero_points[byte / 4u + 1u] << (32u - shift);
    }
#endif
    let code = bits & CODE_MASK;
#if TRACE == 1
    trace_zero_point(n, g, byte / 4u * 4u, shift, f32(code));
#endif
    return code;
#endif
}
#endif

fn zero_point_at(n: u32, g: u32) -> f32 {
#if ZERO_POINT <= 1
    return f32(zero_point_code(n, g));
#else
    let i = n * problem.k_blocks + g;
#if ZERO_POINT == 2
    let value = bitcast<f32>(zero_points[i]);
#elif ZERO_POINT == 3
    let value = float16_of(zero_points[i / 2u], i);
#else
    let value = bfloat16_of(zero_points[i / 2u], i);
#endif
#if TRACE == 1
    trace_zero_point(n, g, ZERO_BYTES * i, 0u, value);
#endif
    return value;
#endif
}
