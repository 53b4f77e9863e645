// MatMulNBits for software adapters, in float: nbits_matvec_alone.inc.wgsl, with A from where it lies.
//
// Bindings: 0 problem, 1 a [M, K], 2 b, 3 scales, 4 zero points, 5 bias [N], 6 g_idx [K], 7 y [M, N],
// 9 other [M, N] with an EPILOGUE.
// 16 threads a workgroup; ceil(n_count / 64) workgroups in x and y (dbt_gpu_grid), ceil(M / M_ROWS) in z.
#param A_WHOLE 0 1 // 1: K is a multiple of 32, and nothing past a row's end is read
#if A_WHOLE == 1 && A_VEC4 == 0
#error whole units are whole vectors
#endif
#include "nbits_a.inc.wgsl"
#include "nbits_matvec_alone.inc.wgsl"
#include "nbits_rows_float.inc.wgsl"

#if A_WHOLE == 1
// In place of rows past the last one, whose sums are not stored, it comes again.
fn load_a_quad(m: u32, k: u32) -> vec4<f32> {
    let at = (min(m, problem.M - 1u) * problem.K + k) / 4u;
    let x = a[at];
#if TRACE == 1
    trace_a_indices(4u * at);
    trace_a_values(x);
#endif
    return x;
}
#else
fn load_a_quad(m: u32, k: u32) -> vec4<f32> {
    return load_a(m, k);
}
#endif

var<private> block_sums: array<vec4<f32>, M_ROWS>;

// Columns of w are rows of B.
fn add_products(i: u32, first_m: u32, unit: u32, q: u32, w: mat4x4<f32>) {
#if TRACE == 1
    trace_a_begin(first_m + i, unit);
    trace_a_next(4u * q);
#endif
    block_sums[i] += load_a_quad(first_m + i, 32u * unit + 4u * q) * w;
}

fn add_quad(rows: Rows, block: Block, first_m: u32, unit: u32, q: u32) {
    let w = mat4x4<f32>(block_weights(rows.u0, rows.n.x, unit, q, block.offset.x),
                        block_weights(rows.u1, rows.n.y, unit, q, block.offset.y),
                        block_weights(rows.u2, rows.n.z, unit, q, block.offset.z),
                        block_weights(rows.u3, rows.n.w, unit, q, block.offset.w));
    add_products(0u, first_m, unit, q, w);
#if M_ROWS == 4
    add_products(1u, first_m, unit, q, w);
    add_products(2u, first_m, unit, q, w);
    add_products(3u, first_m, unit, q, w);
#endif
}

fn end_block(block: Block, first_m: u32, unit: u32, part: u32) {
    sums[0] += block.scale * block_sums[0];
    block_sums[0] = vec4<f32>();
#if M_ROWS == 4
    sums[1] += block.scale * block_sums[1];
    sums[2] += block.scale * block_sums[2];
    sums[3] += block.scale * block_sums[3];
    block_sums[1] = vec4<f32>();
    block_sums[2] = vec4<f32>();
    block_sums[3] = vec4<f32>();
#endif
}
