// What a tile's 16 x 16 threads have: 4 or 8 rows and columns of Y each, in fours. Thread (i, j) has rows 4i
// to 4i + 3, and from 64 + 4i on with a tile of 128 rows; columns likewise.
#include "nbits_problem.inc.wgsl"

#if BIAS == 1
@group(0) @binding(5) var<storage, read> bias: array<f32>;
#endif
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

const THREADS = 256u;
const SUMS = TILE_M / 64u * (TILE_N / 64u) * 4u;

// Four columns each; by [fours of rows][fours of columns][row].
var<private> sums: array<vec4<f32>, SUMS>;

// Where four neighbouring columns of a row of workgroup memory lie: XORed, so that threads that store
// different rows meet all banks.
fn tile_slot(row: u32, column4: u32, tile: u32) -> u32 {
    return row * (tile / 4u) + (column4 ^ (row % 8u));
}

fn store_row(m: u32, first_n: u32, sum: vec4<f32>) {
    for (var j = 0u; j < 4u && m < problem.M && first_n + j < problem.n_count; j++) {
        let column = problem.n_begin + first_n + j;
#if BIAS == 1
        y[m * problem.N + column] = sum[j] + bias[column];
#else
        y[m * problem.N + column] = sum[j];
#endif
    }
}

fn store_tile(m_begin: u32, n_begin: u32, t: u32) {
    for (var i = 0u; i < SUMS; i++) {
        let fours = i / 4u;
        let m = m_begin + fours / (TILE_N / 64u) * 64u + t / 16u * 4u + i % 4u;
        let n = n_begin + fours % (TILE_N / 64u) * 64u + t % 16u * 4u;
        store_row(m, n, sums[i]);
    }
}
