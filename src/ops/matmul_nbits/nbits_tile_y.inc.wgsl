// What a tile's 16 x 16 threads have: 4 or 8 rows and columns of Y each, in fours. Thread (i, j) has rows 4i
// to 4i + 3, and from 64 + 4i on with a tile of 128 rows; columns likewise.
#include "nbits_problem.inc.wgsl"
#include "nbits_y.inc.wgsl"

const THREADS = 256u;
const SUMS = TILE_M / 64u * (TILE_N / 64u) * 4u;

// Four columns each; by [fours of rows][fours of columns][row].
var<private> sums: array<vec4<f32>, SUMS>;

// Where four neighbouring columns of a row of workgroup memory lie: XORed, so that threads that store
// different rows meet all banks.
fn tile_slot(row: u32, column4: u32, tile: u32) -> u32 {
    return row * (tile / 4u) + (column4 ^ (row % 8u));
}

// Row p of the two tiles in workgroup memory: each four of this thread's m with each four of its n, which
// add_products adds to sums or dots from `begin` on.
fn add_fours(p: u32, m4: u32, n4: u32) {
    let x0 = a_tile[tile_slot(p, m4, TILE_M)];
    let w0 = w_tile[tile_slot(p, n4, TILE_N)];
    add_products(0u, x0, w0);
#if TILE_N == 128
    let w1 = w_tile[tile_slot(p, n4 + 16u, TILE_N)];
    add_products(4u, x0, w1);
#endif
#if TILE_M == 128
    let x1 = a_tile[tile_slot(p, m4 + 16u, TILE_M)];
    add_products(SUMS / 2u, x1, w0);
#if TILE_N == 128
    add_products(SUMS / 2u + 4u, x1, w1);
#endif
#endif
}

fn store_row(m: u32, first_n: u32, sum: vec4<f32>) {
    for (var j = 0u; j < 4u && m < problem.M && first_n + j < problem.n_count; j++) {
        store_y(m, problem.n_begin + first_n + j, sum[j]);
    }
}

// Indices of sums are constants here as elsewhere in tiles: an array indexed by a loop's variable may go to memory.
fn store_four(begin: u32, m: u32, n: u32) {
    store_row(m, n, sums[begin]);
    store_row(m + 1u, n, sums[begin + 1u]);
    store_row(m + 2u, n, sums[begin + 2u]);
    store_row(m + 3u, n, sums[begin + 3u]);
}

fn store_tile(m_begin: u32, n_begin: u32, t: u32) {
    let m = m_begin + t / 16u * 4u;
    let n = n_begin + t % 16u * 4u;
    store_four(0u, m, n);
#if TILE_N == 128
    store_four(4u, m, n + 64u);
#endif
#if TILE_M == 128
    store_four(SUMS / 2u, m + 64u, n);
#if TILE_N == 128
    store_four(SUMS / 2u + 4u, m + 64u, n + 64u);
#endif
#endif
}
