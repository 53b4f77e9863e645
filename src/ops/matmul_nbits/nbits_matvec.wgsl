// MatMulNBits for a few rows of A, in float: each workgroup computes GROUPS * COLUMNS columns of Y for M_ROWS
// rows. LANES threads share a group's ROWS rows of B, a unit of 32 codes each at a time, while
// as many units of A lie in workgroup memory; at the end their sums are added up.
//
// Bindings: 0 problem, 1 a [M, K], 2 b, 3 scales, 4 zero points, 5 bias [N], 6 g_idx [K], 7 y [M, N],
// 8 gain [K] with NORM 1, 9 other [M, N] with an EPILOGUE,
// but for a GATE.
// 128 threads a workgroup; ceil(n_count / (GROUPS * COLUMNS)) workgroups in x and y (dbt_gpu_grid), and
// ceil(M / M_ROWS) in z. REDUCE 1 needs subgroups.
#param M_ROWS 1 2 4 8
#param LANES 16 32 64 128
#param ROWS 4 8
#param REDUCE 0 1
#if LANES == 128 && M_ROWS > 1 || LANES == 64 && M_ROWS > 2 || LANES == 32 && M_ROWS > 4 || M_ROWS == 8 && ROWS > 4
#error more than 16 KiB of workgroup memory
#elif NORM == 1 && G_IDX == 1
#error too many buffers
#endif
#include "nbits_rows_float.inc.wgsl"
#include "nbits_a.inc.wgsl"
#include "nbits_matvec.inc.wgsl"

const STAGED = M_ROWS * LANES * QUADS;

// A quad q of unit `lane` lies at q XOR lane, so that lanes that read the same q meet all banks.
fn a_slot(m: u32, lane: u32, q: u32) -> u32 {
    return (m * LANES + lane) * QUADS + (q ^ (lane % QUADS));
}

fn stage_a(first_m: u32, first_unit: u32, t: u32) {
    for (var i = t; i < M_ROWS * LANES * QUADS; i += THREADS) {
        let m = i / (LANES * QUADS);
        let lane = i / QUADS % LANES;
        let q = i % QUADS;
#if TRACE == 1
        trace_a_begin(first_m + m, first_unit + lane);
        trace_a_next(4u * q);
#endif
        shared_quads[a_slot(m, lane, q)] =
            bitcast<vec4<u32>>(load_a(first_m + m, (first_unit + lane) * 32u + 4u * q));
    }
}

var<private> block_sums: array<vec4<f32>, M_ROWS>;

fn add_quad(w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>, lane: u32, q: u32) {
    for (var m = 0u; m < M_ROWS; m++) {
        let x = bitcast<vec4<f32>>(shared_quads[a_slot(m, lane, q)]);
        var sum = block_sums[m];
        sum += x.x * vec4<f32>(w0.x, w1.x, w2.x, w3.x);
        sum += x.y * vec4<f32>(w0.y, w1.y, w2.y, w3.y);
        sum += x.z * vec4<f32>(w0.z, w1.z, w2.z, w3.z);
        sum += x.w * vec4<f32>(w0.w, w1.w, w2.w, w3.w);
        block_sums[m] = sum;
    }
}

fn end_block(quartet: u32, scale: vec4<f32>) {
    for (var m = 0u; m < M_ROWS; m++) {
        sums[quartet * M_ROWS + m] += scale * block_sums[m];
        block_sums[m] = vec4<f32>();
    }
}

#if G_IDX == 1
fn add_unit(quartet: u32, rows: Rows, block: Block, unit: u32, lane: u32) {
    for (var q = 0u; q < QUADS; q++) {
        add_quad(weights_of_groups(quad_of(rows.u0, q), rows.n.x, unit, q),
                 weights_of_groups(quad_of(rows.u1, q), rows.n.y, unit, q),
                 weights_of_groups(quad_of(rows.u2, q), rows.n.z, unit, q),
                 weights_of_groups(quad_of(rows.u3, q), rows.n.w, unit, q), lane, q);
    }
    end_block(quartet, block.scale);
}
#else
fn add_rows_quad(rows: Rows, offset: vec4<f32>, lane: u32, q: u32) {
    add_quad(weights(quad_of(rows.u0, q), q, offset.x), weights(quad_of(rows.u1, q), q, offset.y),
             weights(quad_of(rows.u2, q), q, offset.z), weights(quad_of(rows.u3, q), q, offset.w),
             lane, q);
}

// `first` is the unit's first block. The calls are written out so that q is a constant in each.
fn add_unit(quartet: u32, rows: Rows, first: Block, unit: u32, lane: u32) {
    var block = first;
    add_rows_quad(rows, block.offset, lane, 0u);
    add_rows_quad(rows, block.offset, lane, 1u);
    add_rows_quad(rows, block.offset, lane, 2u);
    add_rows_quad(rows, block.offset, lane, 3u);
#if UNIT_BLOCKS == 2
    end_block(quartet, block.scale);
    if (block_of(unit, 1u) >= problem.k_blocks) {
        return;
    }
    block = load_block(rows.n, block_of(unit, 1u));
#endif
    add_rows_quad(rows, block.offset, lane, 4u);
    add_rows_quad(rows, block.offset, lane, 5u);
    add_rows_quad(rows, block.offset, lane, 6u);
    add_rows_quad(rows, block.offset, lane, 7u);
    end_block(quartet, block.scale);
}
#endif
