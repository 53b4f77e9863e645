// What a tile's threads have: 4 or 8 rows and columns of Y each, in fours. Thread (i, j) has rows 4i
// to 4i + 3, and from 64 + 4i on with a tile of 128 rows; columns likewise. With SPLIT above 1 there are as many
// slices of threads for the tile: each has its part of K, in turn, and in the end their sums are added up.
#param TILE_M 16 32 64 128
#param TILE_N 64 128
#param SPLIT 1 2 4
#if SPLIT > 1 && TILE_M == 128 || SPLIT > 1 && TILE_N == 128
#error slices of small tiles alone
#elif TILE_M == 16 && SPLIT != 4 || TILE_M == 32 && SPLIT != 2 || TILE_M == 64 && SPLIT != 1
#error workgroups of other than 256 threads
#elif TILE_M < 64 && TILE_N == 128
#error a tile of 128 columns has 64 rows
#endif
#include "nbits_problem.inc.wgsl"
#include "nbits_y.inc.wgsl"

const M_THREADS = min(TILE_M, 64) / 4u;
const N_THREADS = 16u;
const SLICE_THREADS = M_THREADS * N_THREADS;
const THREADS = SLICE_THREADS * SPLIT;
const SUMS = max(TILE_M / 64, 1) * (TILE_N / 64u) * 4u;

#if SPLIT == 1
const slice = 0u;
#else
var<private> slice: u32; // this thread's
#endif

// Four columns each; by [fours of rows][fours of columns][row].
var<private> sums: array<vec4<f32>, SUMS>;

// Where four neighbouring columns of a row of workgroup memory lie: XORed, so that threads that store
// different rows meet all banks.
fn tile_slot(row: u32, column4: u32, tile: u32) -> u32 {
    return row * (tile / 4u) + (column4 ^ (row % min(8u, tile / 4u)));
}

// Row p of the slice's two tiles in workgroup memory, of A_TILE and W_TILE fours: each four of this thread's m with each four of its n, which
// add_products adds to sums or dots from `begin` on.
fn add_fours(p: u32, m4: u32, n4: u32) {
    let x0 = a_tile[slice * A_TILE + tile_slot(p, m4, TILE_M)];
    let w0 = w_tile[slice * W_TILE + tile_slot(p, n4, TILE_N)];
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

// Indices of sums are constants here as elsewhere in tiles: an array indexed by a loop's variable may go to memory.
fn store_four(begin: u32, m: u32, n: u32) {
    store_row(m, n, sums[begin]);
    store_row(m + 1u, n, sums[begin + 1u]);
    store_row(m + 2u, n, sums[begin + 2u]);
    store_row(m + 3u, n, sums[begin + 3u]);
}

#if SPLIT > 1
var<workgroup> slices: array<vec4<f32>, THREADS>;

fn add_slices(sum: vec4<f32>, t: u32) -> vec4<f32> {
    workgroupBarrier();
    slices[t] = sum;
    workgroupBarrier();
    var all = slices[t % SLICE_THREADS];
    for (var i = 1u; i < SPLIT; i++) {
        all += slices[t % SLICE_THREADS + i * SLICE_THREADS];
    }
    return all;
}
#endif

fn store_tile(m_begin: u32, n_begin: u32, t: u32) {
    let m = m_begin + t % SLICE_THREADS / N_THREADS * 4u;
    let n = n_begin + t % N_THREADS * 4u;
#if SPLIT > 1
    sums[0] = add_slices(sums[0], t);
    sums[1] = add_slices(sums[1], t);
    sums[2] = add_slices(sums[2], t);
    sums[3] = add_slices(sums[3], t);
    if (slice != 0u) {
        return;
    }
#endif
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
