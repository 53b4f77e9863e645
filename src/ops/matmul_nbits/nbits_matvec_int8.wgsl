// MatMulNBits for a few rows of A, with int8 activations: as nbits_matvec.wgsl, but each workgroup quantizes what it
// lays into workgroup memory, so that there is no dispatch before it. Lanes hold a unit of A as
// eight quads, four bytes of K in a word.
//
// Bindings: 0 problem, 1 a [M, K], 2 b, 3 scales, 4 zero points, 5 bias [N], 7 y [M, N],
// 8 gain [K] with NORM 1, 9 other [M, N] with an EPILOGUE,
// but for a GATE.
// 128 threads a workgroup; ceil(n_count / (GROUPS * COLUMNS)) workgroups in x and y (dbt_gpu_grid), and
// ceil(M / M_ROWS) in z. REDUCE 1 needs subgroups.
#param M_ROWS 1 2 4 8
#param LANES 16 32 64 128
#param ROWS 4 8
#param REDUCE 0 1
#if LANES == 128 && M_ROWS > 2 || LANES == 64 && M_ROWS > 4 || M_ROWS == 8 && ROWS > 4
#error more than 16 KiB of workgroup memory
#endif
#include "nbits_dot.inc.wgsl"
#include "nbits_int8.inc.wgsl"
#include "nbits_matvec.inc.wgsl"
#include "nbits_rows_int8.inc.wgsl"

// For each row m of A and lane: the first four quads, the last four, and the scale and the sum of q of each
// part of the unit.
const STAGED = 3u * M_ROWS * LANES;

fn staged_slot(kind: u32, m: u32, lane: u32) -> u32 {
    return (kind * M_ROWS + m) * LANES + lane;
}

fn stage_a(first_m: u32, first_unit: u32, t: u32) {
    for (var i = t; i < M_ROWS * LANES; i += THREADS) {
        let m = first_m + i / LANES;
        let unit = first_unit + i % LANES;
#if TRACE == 1
        trace_a_begin(first_m + i / LANES, first_unit + i % LANES);
#endif
        let x = quantize_unit(m, unit);
        shared_quads[staged_slot(0u, i / LANES, i % LANES)] = x.low.quads;
        shared_quads[staged_slot(1u, i / LANES, i % LANES)] = x.high.quads;
#if UNIT_BLOCKS == 2
        shared_quads[staged_slot(2u, i / LANES, i % LANES)] =
            vec4<u32>(bitcast<u32>(x.scale), bitcast<u32>(x.low.sum),
                      bitcast<u32>(x.second_scale), bitcast<u32>(x.high.sum));
#else
        shared_quads[staged_slot(2u, i / LANES, i % LANES)] =
            vec4<u32>(bitcast<u32>(x.scale), bitcast<u32>(x.low.sum + x.high.sum), 0u, 0u);
#endif
    }
}

var<private> dots: array<vec4<i32>, M_ROWS>;

// Quads 4 * which to 4 * which + 3.
fn add_quads(rows: Rows, lane: u32, which: u32) {
    let q = 4u * which;
    let w0 = packed_rows(rows, q);
    let w1 = packed_rows(rows, q + 1u);
    let w2 = packed_rows(rows, q + 2u);
    let w3 = packed_rows(rows, q + 3u);
    for (var m = 0u; m < M_ROWS; m++) {
        let x = shared_quads[staged_slot(which, m, lane)];
        var sum = dots[m] + dot_rows(x.x, w0); // one after the other, as devices add to a dot
        sum += dot_rows(x.y, w1);
        sum += dot_rows(x.z, w2);
        dots[m] = sum + dot_rows(x.w, w3);
    }
}

fn end_block(quartet: u32, block: Block, lane: u32, part: u32) {
    for (var m = 0u; m < M_ROWS; m++) {
        let staged = shared_quads[staged_slot(2u, m, lane)];
        sums[quartet * M_ROWS + m] +=
            bitcast<f32>(staged[2u * part]) *
            block_dots(dots[m], bitcast<i32>(staged[2u * part + 1u]), block) * block.scale;
        dots[m] = vec4<i32>();
    }
}

// `first` is the unit's first block.
fn add_unit(quartet: u32, rows: Rows, first: Block, unit: u32, lane: u32) {
    var block = first;
    add_quads(rows, lane, 0u);
#if UNIT_BLOCKS == 2
    end_block(quartet, block, lane, 0u);
    if (block_of(unit, 1u) >= problem.k_blocks) {
        return;
    }
    block = load_block(rows.n, block_of(unit, 1u));
#endif
    add_quads(rows, lane, 1u);
    end_block(quartet, block, lane, UNIT_BLOCKS - 1u);
}
