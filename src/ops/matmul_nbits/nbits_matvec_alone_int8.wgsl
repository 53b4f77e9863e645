// MatMulNBits for software adapters, with int8 activations: nbits_matvec_alone.inc.wgsl, with A from
// nbits_quantize.wgsl.
//
// Bindings: 0 problem, 1 quads [units * 8, m_stride], 2 b, 3 scales, 4 zero points, 5 bias [N], 6 parts
// [units * UNIT_BLOCKS, m_stride], 7 y [M, N], 9 other [M, N] with an EPILOGUE.
// 16 threads a workgroup; ceil(n_count / 64) workgroups in x and y (dbt_gpu_grid), ceil(M / M_ROWS) in z;
// m_stride is a multiple of M_ROWS.
#include "nbits_dot.inc.wgsl"
#include "nbits_matvec_alone.inc.wgsl"
#include "nbits_rows_int8.inc.wgsl"

@group(0) @binding(1) var<storage, read> a_quads: array<u32>;
@group(0) @binding(6) var<storage, read> a_parts: array<vec2<u32>>;

var<private> dots: array<vec4<i32>, M_ROWS>;

fn add_products(i: u32, first_m: u32, unit: u32, q: u32, w: vec4<u32>) {
    let quad = a_quads[(unit * QUADS + q) * problem.m_stride + first_m + i];
#if TRACE == 1
    trace_a_begin(first_m + i, unit);
    trace_a_codes(q, quad, packed_elements(q));
#endif
    dots[i] += dot_rows(quad, w);
}

fn add_quad(rows: Rows, block: Block, first_m: u32, unit: u32, q: u32) {
    let w = packed_rows(rows, q);
    add_products(0u, first_m, unit, q, w);
#if M_ROWS == 4
    add_products(1u, first_m, unit, q, w);
    add_products(2u, first_m, unit, q, w);
    add_products(3u, first_m, unit, q, w);
#endif
}

fn end_row(i: u32, block: Block, first_m: u32, unit: u32, part: u32) {
    let a = a_parts[(unit * UNIT_BLOCKS + part) * problem.m_stride + first_m + i];
    let scale = bitcast<f32>(a.x);
#if TRACE == 1
    trace_a_begin(first_m + i, unit);
    trace_a_scale(part, scale);
#if UNIT_BLOCKS == 1
    trace_a_scale(1u, scale);
#endif
#endif
    sums[i] += scale * block_dots(dots[i], bitcast<i32>(a.y), block) * block.scale;
    dots[i] = vec4<i32>();
}

fn end_block(block: Block, first_m: u32, unit: u32, part: u32) {
    end_row(0u, block, first_m, unit, part);
#if M_ROWS == 4
    end_row(1u, block, first_m, unit, part);
    end_row(2u, block, first_m, unit, part);
    end_row(3u, block, first_m, unit, part);
#endif
}
