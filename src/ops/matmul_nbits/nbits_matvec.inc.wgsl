// What float and int8 matvecs do alike: unit after unit A is laid into workgroup memory, by stage_a, and met
// with rows of B, by add_unit; then the lanes' sums become Y.
#include "nbits_block.inc.wgsl"
#include "nbits_norm.inc.wgsl"
#include "nbits_reduce.inc.wgsl"
#include "nbits_rows.inc.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>,
        @builtin(num_workgroups) workgroups: vec3<u32>,
#if REDUCE == 1
        @builtin(subgroup_size) subgroup_size: u32,
#endif
        @builtin(local_invocation_index) t: u32) {
    let lane = t % LANES;
    let workgroup_n = (workgroup.x + workgroup.y * workgroups.x) * GROUPS * COLUMNS;
    if (workgroup_n >= problem.n_count) {
        return;
    }
    let first_n = workgroup_n + t / LANES * COLUMNS;
    let first_m = workgroup.z * M_ROWS;
#if TRACE == 1
    trace_rows(first_m, M_ROWS);
#endif
#if NORM == 1
    find_inverse_roots(first_m, t);
#endif
    for (var first_unit = 0u; first_unit < problem.units; first_unit += LANES) {
        // B comes from afar: it is asked for before A is waited for.
        let unit = min(first_unit + lane, problem.units - 1u);
        let rows = load_rows(0u, first_n, unit);
        let block = load_block(rows.n, block_of(unit, 0u));
#if GATE == 1
        let more_rows = load_rows(problem.second_row, first_n, unit);
#elif ROWS == 8
        let more_rows = load_rows(0u, first_n + 4u, unit);
#endif
#if ROWS == 8
        let more_block = load_block(more_rows.n, block_of(unit, 0u));
#endif
        workgroupBarrier();
        stage_a(first_m, first_unit, t);
        workgroupBarrier();
        if (first_unit + lane < problem.units) {
            add_unit(0u, rows, block, unit, lane);
#if ROWS == 8
            add_unit(1u, more_rows, more_block, unit, lane);
#endif
        }
    }
#if REDUCE == 1
    let width = min(subgroup_size, LANES);
    reduce_subgroups(t, width);
    store_sums(workgroup_n, first_m, t, width);
#else
    reduce_lanes(t, lane);
    store_sums(workgroup_n, first_m, t, LANES);
#endif
}
