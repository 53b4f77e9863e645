// MatMulNBits for many rows of A, in float: each workgroup computes a tile of TILE_M x TILE_N elements of Y.
// Unit after unit (32 elements of K) it lays A and the weights into workgroup memory, and each of its
// threads adds up its part of the tile; with SPLIT slices each has every SPLIT-th unit.
//
// Bindings: 0 problem, 1 a [M, K], 2 b, 3 scales, 4 zero points, 5 bias [N], 6 g_idx [K], 7 y [M, N],
// 9 other [M, N] with an EPILOGUE.
// 256 threads a workgroup; ceil(n_count / TILE_N) workgroups in x and y
// (dbt_gpu_grid), ceil(M / TILE_M) in z. SPLIT * 128 * (TILE_M + TILE_N) bytes of workgroup memory, and 16 a
// thread with slices.
#if SPLIT == 4
#error more than 32 KiB of workgroup memory
#endif
#include "nbits_weights.inc.wgsl"
#include "nbits_a.inc.wgsl"
#include "nbits_tile_y.inc.wgsl"

// Four neighbouring m or n of element p of the unit are at slot tile_slot. Element k lies at p = k / 4 + 8 *
// (k % 4), and columns are XORed with p, so that threads that store meet all banks.
const A_TILE = 8u * TILE_M;
const W_TILE = 8u * TILE_N;
var<workgroup> a_tile: array<vec4<f32>, SPLIT * A_TILE>;
var<workgroup> w_tile: array<vec4<f32>, SPLIT * W_TILE>;

fn load_row(m: u32, k: u32) -> vec4<f32> {
#if TRACE == 1
    trace_a_begin(m, k / 32u);
    trace_a_next(k);
#endif
    return load_a(m, k);
}

fn stage_a(m_begin: u32, unit: u32, t: u32) {
    let tile = slice * A_TILE;
    for (var i = t; i < 2u * TILE_M; i += SLICE_THREADS) {
        let q = i % QUADS;
        let m4 = i / QUADS;
        let m = m_begin + 4u * m4;
        let k = 32u * unit + 4u * q;
        let rows = transpose(mat4x4<f32>(load_row(m, k), load_row(m + 1u, k), load_row(m + 2u, k),
                                         load_row(m + 3u, k)));
        a_tile[tile + tile_slot(q, m4, TILE_M)] = rows[0];
        a_tile[tile + tile_slot(q + 8u, m4, TILE_M)] = rows[1];
        a_tile[tile + tile_slot(q + 16u, m4, TILE_M)] = rows[2];
        a_tile[tile + tile_slot(q + 24u, m4, TILE_M)] = rows[3];
    }
}

// Codes 4q to 4q + 3 of row n as whole weights. Past the last unit A is 0.
fn load_weights(row: u32, wanted_unit: u32, q: u32) -> vec4<f32> {
    let n = min(row, problem.n_count - 1u);
    let unit = min(wanted_unit, problem.units - 1u);
    let words = load_quad(n, unit, q);
#if G_IDX == 1
    return weights_of_groups(words, n, unit, q);
#else
    let g = min(block_of(unit, q / BLOCK_QUADS), problem.k_blocks - 1u);
#if TRACE == 1
    trace_range(32u * unit + 4u * q, 4u);
#endif
    return weights(words, q, weight_offset(n, g)) * scale_at(n, g);
#endif
}

fn stage_w(n_begin: u32, unit: u32, t: u32) {
    let tile = slice * W_TILE;
    for (var i = t; i < 2u * TILE_N; i += SLICE_THREADS) {
        let q = i % QUADS;
        let n4 = i / QUADS;
        let n = n_begin + 4u * n4;
        let rows = transpose(mat4x4<f32>(load_weights(n, unit, q), load_weights(n + 1u, unit, q),
                                         load_weights(n + 2u, unit, q),
                                         load_weights(n + 3u, unit, q)));
        w_tile[tile + tile_slot(q, n4, TILE_N)] = rows[0];
        w_tile[tile + tile_slot(q + 8u, n4, TILE_N)] = rows[1];
        w_tile[tile + tile_slot(q + 16u, n4, TILE_N)] = rows[2];
        w_tile[tile + tile_slot(q + 24u, n4, TILE_N)] = rows[3];
    }
}

// Four m of A times four n of the weights.
fn add_products(begin: u32, x: vec4<f32>, w: vec4<f32>) {
    sums[begin] += x.x * w;
    sums[begin + 1u] += x.y * w;
    sums[begin + 2u] += x.z * w;
    sums[begin + 3u] += x.w * w;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>,
        @builtin(num_workgroups) workgroups: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let n_begin = (workgroup.x + workgroup.y * workgroups.x) * TILE_N;
    if (n_begin >= problem.n_count) {
        return;
    }
    let m_begin = workgroup.z * TILE_M;
    let s = t % SLICE_THREADS;
#if SPLIT > 1
    slice = t / SLICE_THREADS;
#endif
#if TRACE == 1
    trace_rows(m_begin, TILE_M);
#endif
    for (var first = 0u; first < problem.units; first += SPLIT) {
        workgroupBarrier();
        stage_a(m_begin, first + slice, s);
        stage_w(n_begin, first + slice, s);
        workgroupBarrier();
        for (var p = 0u; p < 32u; p += 8u) {
            add_fours(p, s / N_THREADS, s % N_THREADS);
            add_fours(p + 1u, s / N_THREADS, s % N_THREADS);
            add_fours(p + 2u, s / N_THREADS, s % N_THREADS);
            add_fours(p + 3u, s / N_THREADS, s % N_THREADS);
            add_fours(p + 4u, s / N_THREADS, s % N_THREADS);
            add_fours(p + 5u, s / N_THREADS, s % N_THREADS);
            add_fours(p + 6u, s / N_THREADS, s % N_THREADS);
            add_fours(p + 7u, s / N_THREADS, s % N_THREADS);
        }
    }
    store_tile(m_begin, n_begin, t);
}
