// A matrix product of many rows: each workgroup computes a tile of TILE_M x TILE_N elements of Y. TILE_K by
// TILE_K it lays A and B into workgroup memory, and each of its 16 x 16 threads adds up its part of the tile.
//
// Bindings: gemm.inc.wgsl. 256 threads a workgroup; n_batches * ceil(N / TILE_N) * ceil(M / TILE_M) workgroups,
// M fastest. Up to 8.5 KB of workgroup memory. No features.
#param TILE_M 16 64 128
#param TILE_N 64 128
#param A_LINES 0 1 // neighbours in A lie along k, along m: neighbouring threads load those
#param B_LINES 0 1 // neighbours in B lie along n, along k

#include "gemm.inc.wgsl"
#if TILE_M != 128 && TILE_N == 128
#error a wide tile is a high one
#endif

#if TILE_M == 128
const TILE_K = 8u;
#else
const TILE_K = 16u;
#endif
const QUADS_M = TILE_M / 4u;
const QUADS_N = TILE_N / 4u;
// Of a row of a tile in workgroup memory: one more than it holds, so that columns meet all banks.
const A_STRIDE = QUADS_M + 1u;
const B_STRIDE = QUADS_N + 1u;
const THREAD_QUADS_N = TILE_N / 64u;
const THREAD_M = TILE_M / 16u; // rows of a thread: one, or quads of them

// [TILE_K][TILE_M] and [TILE_K][TILE_N], in quads.
var<workgroup> a_tile: array<vec4<f32>, TILE_K * A_STRIDE>;
var<workgroup> b_tile: array<vec4<f32>, TILE_K * B_STRIDE>;

fn load_a(begins: vec3<u32>, m_begin: u32, k_begin: u32, t: u32) {
    for (var i = t; i < TILE_K * QUADS_M; i += 256u) {
#if A_LINES == 0
        let k = i % TILE_K;
        let quad = i / TILE_K;
#else
        let k = i / QUADS_M;
        let quad = i % QUADS_M;
#endif
        let m = m_begin + 4u * quad;
        a_tile[k * A_STRIDE + quad] =
            vec4<f32>(a_at(begins, m, k_begin + k), a_at(begins, m + 1u, k_begin + k),
                      a_at(begins, m + 2u, k_begin + k), a_at(begins, m + 3u, k_begin + k));
    }
}

fn load_b(begins: vec3<u32>, n_begin: u32, k_begin: u32, t: u32) {
    for (var i = t; i < TILE_K * QUADS_N; i += 256u) {
#if B_LINES == 0
        let k = i / QUADS_N;
        let quad = i % QUADS_N;
#else
        let k = i % TILE_K;
        let quad = i / TILE_K;
#endif
        let n = n_begin + 4u * quad;
        b_tile[k * B_STRIDE + quad] =
            vec4<f32>(b_at(begins, k_begin + k, n), b_at(begins, k_begin + k, n + 1u),
                      b_at(begins, k_begin + k, n + 2u), b_at(begins, k_begin + k, n + 3u));
    }
}

// Row r of a thread in the tile.
fn row_of(thread_row: u32, r: u32) -> u32 {
#if TILE_M == 16
    return thread_row;
#else
    return 4u * (thread_row + 16u * (r / 4u)) + r % 4u;
#endif
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let tiles_m = (u.M + TILE_M - 1u) / TILE_M;
    let tiles_n = (u.N + TILE_N - 1u) / TILE_N;
    let tile = grid_index(group, groups);
    if tile >= u.n_batches * tiles_m * tiles_n {
        return;
    }
    let begins = batch_begins(tile / tiles_m / tiles_n);
    let m_begin = tile % tiles_m * TILE_M;
    let n_begin = tile / tiles_m % tiles_n * TILE_N;
    let column = t % 16u;
    let row = t / 16u;
    var sums: array<vec4<f32>, THREAD_M * THREAD_QUADS_N>;
    for (var k_begin = 0u; k_begin < u.K; k_begin += TILE_K) {
        load_a(begins, m_begin, k_begin, t);
        load_b(begins, n_begin, k_begin, t);
        workgroupBarrier();
        for (var k = 0u; k < TILE_K; k++) {
            for (var q = 0u; q < THREAD_QUADS_N; q++) {
                let weights = b_tile[k * B_STRIDE + column + 16u * q];
#if TILE_M == 16
                sums[q] += a_tile[k * A_STRIDE + row / 4u][row % 4u] * weights;
#else
                for (var r = 0u; r < THREAD_M; r += 4u) {
                    let values = a_tile[k * A_STRIDE + row + 4u * r];
                    sums[r * THREAD_QUADS_N + q] += values.x * weights;
                    sums[(r + 1u) * THREAD_QUADS_N + q] += values.y * weights;
                    sums[(r + 2u) * THREAD_QUADS_N + q] += values.z * weights;
                    sums[(r + 3u) * THREAD_QUADS_N + q] += values.w * weights;
                }
#endif
            }
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < THREAD_M; r++) {
        for (var q = 0u; q < THREAD_QUADS_N; q++) {
            let m = m_begin + row_of(row, r);
            let n = n_begin + 4u * (column + 16u * q);
            let sum = sums[r * THREAD_QUADS_N + q];
            store(begins, m, n, sum.x);
            store(begins, m, n + 1u, sum.y);
            store(begins, m, n + 2u, sum.z);
            store(begins, m, n + 3u, sum.w);
        }
    }
}
