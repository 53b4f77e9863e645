// MatMulNBits for many rows of A, with int8 activations from nbits_quantize.wgsl: as nbits_tile.wgsl, but a row
// of workgroup memory is a quad, four bytes of K in a word, and sums of integers become floats
// where a scale ends. In steps of two units, of which each of SPLIT slices has every SPLIT-th.
//
// Bindings: 0 problem, 1 quads [units * 8, m_stride], 2 b, 3 scales, 4 zero points, 5 bias [N], 6 parts
// [units * UNIT_BLOCKS, m_stride], 7 y [M, N], 9 other [M, N] with an EPILOGUE.
// 256 threads a workgroup; ceil(n_count / TILE_N) workgroups in x and y (dbt_gpu_grid), ceil(M / TILE_M) in z;
// m_stride is a multiple of TILE_M. For each slice 64 * (TILE_M + TILE_N)
// bytes of workgroup memory for quads, and UNIT_BLOCKS * (16 * TILE_M + 24 * TILE_N) for parts; 16 a thread with slices.
#include "nbits_b.inc.wgsl"
#include "nbits_block.inc.wgsl"
#include "nbits_dot.inc.wgsl"
#include "nbits_int8_zero.inc.wgsl"
#include "nbits_scale.inc.wgsl"
#include "nbits_tile_y.inc.wgsl"

@group(0) @binding(1) var<storage, read> a_quads: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> a_parts: array<vec2<u32>>;

const STEP_UNITS = 2u;
const STEP_QUADS = STEP_UNITS * QUADS;
const STEP_PARTS = STEP_UNITS * UNIT_BLOCKS;

const A_TILE = STEP_QUADS * TILE_M / 4u;
const W_TILE = STEP_QUADS * TILE_N / 4u;
const A_PARTS = STEP_PARTS * TILE_M;
const W_PARTS = STEP_PARTS * TILE_N;
var<workgroup> a_tile: array<vec4<u32>, SPLIT * A_TILE>;
var<workgroup> w_tile: array<vec4<u32>, SPLIT * W_TILE>;
var<workgroup> a_scale: array<f32, SPLIT * A_PARTS>;
var<workgroup> w_scale: array<f32, SPLIT * W_PARTS>;

#if BITS == 8 || ZERO_POINT >= 2
var<workgroup> a_sum: array<i32, SPLIT * A_PARTS>;
var<workgroup> w_zero: array<ZeroPoint, SPLIT * W_PARTS>;
#endif

fn stage_a(m_begin: u32, first_unit: u32, t: u32) {
    for (var i = t; i < A_TILE; i += SLICE_THREADS) {
        let m4 = i % (TILE_M / 4u);
        let p = i / (TILE_M / 4u);
        let row = first_unit * QUADS + p;
        var quads = vec4<u32>();
        if (row < problem.units * QUADS) {
            quads = a_quads[(row * problem.m_stride + m_begin) / 4u + m4];
        }
#if TRACE == 1
        let m = problem.trace_m - m_begin;
        trace_a_begin(select(TRACE_NONE, problem.trace_m, m / 4u == m4), first_unit + p / QUADS);
        trace_a_codes(p % QUADS, quads[m % 4u], packed_elements(p));
#endif
        a_tile[slice * A_TILE + tile_slot(p, m4, TILE_M)] = quads;
    }
    for (var i = t; i < A_PARTS; i += SLICE_THREADS) {
        let row = first_unit * UNIT_BLOCKS + i / TILE_M;
        var part = vec2<u32>();
        if (row < problem.units * UNIT_BLOCKS) {
            part = a_parts[row * problem.m_stride + m_begin + i % TILE_M];
        }
#if TRACE == 1
        trace_a_begin(m_begin + i % TILE_M, row / UNIT_BLOCKS);
        trace_a_scale(row % UNIT_BLOCKS, bitcast<f32>(part.x));
#if UNIT_BLOCKS == 1
        trace_a_scale(1u, bitcast<f32>(part.x));
#endif
#endif
        a_scale[slice * A_PARTS + i] = bitcast<f32>(part.x);
#if BITS == 8 || ZERO_POINT >= 2
        a_sum[slice * A_PARTS + i] = bitcast<i32>(part.y);
#endif
    }
}

// Quad q of row n as bytes for the dot. Codes of at most 7 bits lose an integer zero point at once; what else
// there is comes off afterwards, by the sums of q.
fn load_bytes(row: u32, unit: u32, q: u32) -> u32 {
    let n = min(row, problem.n_count - 1u);
    let bytes = pack_quad(load_quad(n, unit, q), q);
#if BITS == 8 || ZERO_POINT >= 2
    return bytes;
#else
    let g = min(block_of(unit, q / BLOCK_QUADS), problem.k_blocks - 1u);
#if TRACE == 1
    trace_range(32u * unit + q / 4u * 16u, 16u);
#endif
    // Byte by byte: no byte borrows while its top bit is up.
    return ((bytes | 0x80808080u) - zero_point_code(n, g) * 0x01010101u) ^ 0x80808080u;
#endif
}

fn stage_w(n_begin: u32, first_unit: u32, t: u32) {
    for (var i = t; i < W_TILE; i += SLICE_THREADS) {
        let q = i % QUADS;
        let n4 = i / QUADS % (TILE_N / 4u);
        let step = i / QUADS / (TILE_N / 4u);
        let unit = min(first_unit + step, problem.units - 1u);
        let n = n_begin + 4u * n4;
        w_tile[slice * W_TILE + tile_slot(step * QUADS + q, n4, TILE_N)] =
            vec4<u32>(load_bytes(n, unit, q), load_bytes(n + 1u, unit, q),
                      load_bytes(n + 2u, unit, q), load_bytes(n + 3u, unit, q));
    }
    for (var i = t; i < W_PARTS; i += SLICE_THREADS) {
        let n = min(n_begin + i % TILE_N, problem.n_count - 1u);
        let part = i / TILE_N;
        let unit = first_unit + part / UNIT_BLOCKS;
        let g = block_of(unit, part % UNIT_BLOCKS);
        let inside = unit < problem.units && g < problem.k_blocks;
        let block = min(g, problem.k_blocks - 1u);
        w_scale[slice * W_PARTS + i] = select(0.0, scale_at(n, block), inside);
#if BITS == 8 || ZERO_POINT >= 2
        w_zero[slice * W_PARTS + i] = split_zero_point(n, block);
#endif
    }
}

// An integer of less than 23 bits plus these bits is the float 1.5 * 2^23 plus that integer: sums begin here and
// become floats without a conversion.
const EXPONENT = 0x4b400000;
const EXPONENT_VALUE = 12582912.0;

// By fours as sums.
var<private> dots: array<vec4<i32>, SUMS>;

// Each of these does four m times four n.

fn begin_four(begin: u32, part: u32, m: u32, n: u32) {
#if BITS == 8 || ZERO_POINT >= 2
    let w = slice * W_PARTS + part * TILE_N + n;
    let a = slice * A_PARTS + part * TILE_M + m;
    let whole = vec4<i32>(w_zero[w].whole, w_zero[w + 1u].whole, w_zero[w + 2u].whole,
                          w_zero[w + 3u].whole);
    dots[begin] = vec4<i32>(EXPONENT) - whole * a_sum[a];
    dots[begin + 1u] = vec4<i32>(EXPONENT) - whole * a_sum[a + 1u];
    dots[begin + 2u] = vec4<i32>(EXPONENT) - whole * a_sum[a + 2u];
    dots[begin + 3u] = vec4<i32>(EXPONENT) - whole * a_sum[a + 3u];
#else
    dots[begin] = vec4<i32>(EXPONENT);
    dots[begin + 1u] = vec4<i32>(EXPONENT);
    dots[begin + 2u] = vec4<i32>(EXPONENT);
    dots[begin + 3u] = vec4<i32>(EXPONENT);
#endif
}

fn add_products(begin: u32, x: vec4<u32>, w: vec4<u32>) {
    dots[begin] += dot_rows(x.x, w);
    dots[begin + 1u] += dot_rows(x.y, w);
    dots[begin + 2u] += dot_rows(x.z, w);
    dots[begin + 3u] += dot_rows(x.w, w);
}

// The dots of row m with four n, without what they began with and what is left of their zero points.
fn end_row(dots_of_row: vec4<i32>, a: u32, w: u32) -> vec4<f32> {
    let dot = bitcast<vec4<f32>>(dots_of_row) - vec4<f32>(EXPONENT_VALUE);
#if ZERO_POINT >= 2
    let rest = vec4<f32>(w_zero[w].rest, w_zero[w + 1u].rest, w_zero[w + 2u].rest,
                         w_zero[w + 3u].rest);
    return (dot - rest * f32(a_sum[a])) * a_scale[a];
#else
    return dot * a_scale[a];
#endif
}

fn end_four(begin: u32, part: u32, m: u32, n: u32) {
    let w = slice * W_PARTS + part * TILE_N + n;
    let a = slice * A_PARTS + part * TILE_M + m;
    let scale = vec4<f32>(w_scale[w], w_scale[w + 1u], w_scale[w + 2u], w_scale[w + 3u]);
    sums[begin] += end_row(dots[begin], a, w) * scale;
    sums[begin + 1u] += end_row(dots[begin + 1u], a + 1u, w) * scale;
    sums[begin + 2u] += end_row(dots[begin + 2u], a + 2u, w) * scale;
    sums[begin + 3u] += end_row(dots[begin + 3u], a + 3u, w) * scale;
}

fn begin_part(part: u32, m: u32, n: u32) {
    begin_four(0u, part, m, n);
#if TILE_N == 128
    begin_four(4u, part, m, n + 64u);
#endif
#if TILE_M == 128
    begin_four(SUMS / 2u, part, m + 64u, n);
#if TILE_N == 128
    begin_four(SUMS / 2u + 4u, part, m + 64u, n + 64u);
#endif
#endif
}

fn end_part(part: u32, m: u32, n: u32) {
    end_four(0u, part, m, n);
#if TILE_N == 128
    end_four(4u, part, m, n + 64u);
#endif
#if TILE_M == 128
    end_four(SUMS / 2u, part, m + 64u, n);
#if TILE_N == 128
    end_four(SUMS / 2u + 4u, part, m + 64u, n + 64u);
#endif
#endif
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
    let m4 = s / N_THREADS;
    let n4 = s % N_THREADS;
#if SPLIT > 1
    slice = t / SLICE_THREADS;
#endif
#if TRACE == 1
    trace_rows(m_begin, TILE_M);
#endif
    for (var first = 0u; first < problem.units; first += SPLIT * STEP_UNITS) {
        let unit = first + slice * STEP_UNITS;
        workgroupBarrier();
        stage_a(m_begin, unit, s);
        stage_w(n_begin, unit, s);
        workgroupBarrier();
        for (var part = 0u; part < STEP_PARTS; part++) {
            begin_part(part, 4u * m4, 4u * n4);
            let p = part * BLOCK_QUADS;
            add_fours(p, m4, n4);
            add_fours(p + 1u, m4, n4);
            add_fours(p + 2u, m4, n4);
            add_fours(p + 3u, m4, n4);
#if UNIT_BLOCKS == 1
            add_fours(p + 4u, m4, n4);
            add_fours(p + 5u, m4, n4);
            add_fours(p + 6u, m4, n4);
            add_fours(p + 7u, m4, n4);
#endif
            end_part(part, 4u * m4, 4u * n4);
        }
    }
    store_tile(m_begin, n_begin, t);
}
