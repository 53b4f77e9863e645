// What float and int8 shaders do alike in which a thread computes four columns of M_ROWS rows of Y by itself: they
// go through its rows of B unit after unit, by add_quad and end_block. Without workgroup memory and barriers, which cost
// a software adapter more than all arithmetic; and indices of private arrays are constants in each call.
#param M_ROWS 1 4
#param LANES 1
#include "nbits_problem.inc.wgsl"
#include "nbits_rows.inc.wgsl"
#include "nbits_y.inc.wgsl"

const THREADS = 16u;

var<private> sums: array<vec4<f32>, M_ROWS>; // of four columns each

// Written out, where q is a constant in each call; in a loop where a quad's code is long, since it is compiled
// as often as it is called.
fn add_quads(rows: Rows, block: Block, first_m: u32, unit: u32, first: u32) {
#if TRACE == 1 || defined G_IDX && G_IDX == 1
    for (var q = first; q < first + 4u; q++) {
        add_quad(rows, block, first_m, unit, q);
    }
#else
    add_quad(rows, block, first_m, unit, first);
    add_quad(rows, block, first_m, unit, first + 1u);
    add_quad(rows, block, first_m, unit, first + 2u);
    add_quad(rows, block, first_m, unit, first + 3u);
#endif
}

fn add_unit(rows: Rows, first_m: u32, unit: u32) {
    var block = load_block(rows.n, block_of(unit, 0u));
    add_quads(rows, block, first_m, unit, 0u);
#if UNIT_BLOCKS == 2
    end_block(block, first_m, unit, 0u);
    if (block_of(unit, 1u) >= problem.k_blocks) {
        return;
    }
    block = load_block(rows.n, block_of(unit, 1u));
#endif
    add_quads(rows, block, first_m, unit, 4u);
    end_block(block, first_m, unit, UNIT_BLOCKS - 1u);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>,
        @builtin(num_workgroups) workgroups: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let first_n = ((workgroup.x + workgroup.y * workgroups.x) * THREADS + t) * 4u;
    if (first_n >= problem.n_count) {
        return;
    }
    let first_m = workgroup.z * M_ROWS;
#if TRACE == 1
    trace_rows(first_m, M_ROWS);
#endif
    for (var unit = 0u; unit < problem.units; unit++) {
        add_unit(load_rows(0u, first_n, unit), first_m, unit);
    }
    store_row(first_m, first_n, sums[0]);
#if M_ROWS == 4
    store_row(first_m + 1u, first_n, sums[1]);
    store_row(first_m + 2u, first_n, sums[2]);
    store_row(first_m + 3u, first_n, sums[3]);
#endif
}
