// A matrix product of few rows, which is bound by reading B: each workgroup computes COLUMNS columns of ROWS
// rows of Y, PARTS threads for each column, who take every PARTS-th k and then add up what they have.
//
// Bindings: gemm.inc.wgsl. 256 threads a workgroup; n_batches * ceil(N / COLUMNS) * ceil(M / ROWS) workgroups,
// M fastest. 1 KB * ROWS of workgroup memory. No features.
#param ROWS 1 2 4
#param B_LINES 0 1 // neighbours in B lie along n, along k: neighbouring threads load those

#include "gemm.inc.wgsl"

#if B_LINES == 0
const COLUMNS = 32u;
#else
const COLUMNS = 8u;
#endif
const PARTS = 256u / COLUMNS;

// [ROWS][PARTS][COLUMNS]
var<workgroup> parts: array<f32, ROWS * 256u>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let tiles_m = (u.M + ROWS - 1u) / ROWS;
    let tiles_n = (u.N + COLUMNS - 1u) / COLUMNS;
    let tile = grid_index(group, groups);
    if tile >= u.n_batches * tiles_m * tiles_n {
        return;
    }
    let begins = batch_begins(tile / tiles_m / tiles_n);
    let m_begin = tile % tiles_m * ROWS;
    let n_begin = tile / tiles_m % tiles_n * COLUMNS;
#if B_LINES == 0
    let column = t % COLUMNS;
    let part = t / COLUMNS;
#else
    let column = t / PARTS;
    let part = t % PARTS;
#endif
    var sums: array<f32, ROWS>;
    for (var k = part; k < u.K; k += PARTS) {
        let weight = b_at(begins, k, n_begin + column);
        for (var r = 0u; r < ROWS; r++) {
            sums[r] = fma(a_at(begins, m_begin + r, k), weight, sums[r]);
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        parts[r * 256u + part * COLUMNS + column] = sums[r];
    }
    workgroupBarrier();
    for (var i = t; i < ROWS * COLUMNS; i += 256u) {
        let r = i / COLUMNS;
        var sum = 0.0;
        for (var p = 0u; p < PARTS; p++) {
            sum += parts[r * 256u + p * COLUMNS + i % COLUMNS];
        }
        store(begins, m_begin + r, n_begin + i % COLUMNS, sum);
    }
}
