// The end of a matvec: adds up the sums of a group's LANES threads, in workgroup memory or by subgroups,
// and stores Y. Thread t has sums[QUARTET * M_ROWS + m] of four columns each: QUARTET 0 the group's first four,
// QUARTET 1 the next; of a gate the same four of the second product.
#param GATE 0 1 // 1: Y is the EPILOGUE's gate of the product, times that with the rows from second_row on
#if GATE == 1 && ROWS == 4 || GATE == 1 && EPILOGUE < 2
#error a gate has two products
#endif
#include "nbits_problem.inc.wgsl"
#include "nbits_y.inc.wgsl"

const THREADS = 128u;
const GROUPS = THREADS / LANES;
const SUMS = M_ROWS * ROWS / 4u;
#if GATE == 1
const COLUMNS = ROWS / 2u; // of Y, of a group
#else
const COLUMNS = ROWS;
#endif

var<private> sums: array<vec4<f32>, SUMS>;
// First STAGED words of four of A, then the bits of the sums: [SUMS, THREADS].
var<workgroup> shared_quads: array<vec4<u32>, max(STAGED, SUMS * THREADS)>;

#if REDUCE == 1
#if SUBGROUPS == 0
#error REDUCE 1 needs subgroups
#endif
#if NAGA == 0
enable subgroups;
#endif
// The sum of `width` threads, those of a subgroup or of a group if that is smaller, is with the first of
// them: threads of a subgroup are neighbours.
fn reduce_subgroups(t: u32, width: u32) {
    workgroupBarrier();
    for (var i = 0u; i < SUMS; i++) {
        var sum = sums[i];
        for (var half = width / 2u; half > 0u; half /= 2u) {
            sum += subgroupShuffleXor(sum, half);
        }
        if (t % width == 0u) {
            shared_quads[i * THREADS + t] = bitcast<vec4<u32>>(sum);
        }
    }
    workgroupBarrier();
}
#else
// A group's sum is with its first thread.
fn reduce_lanes(t: u32, lane: u32) {
    workgroupBarrier();
    for (var i = 0u; i < SUMS; i++) {
        shared_quads[i * THREADS + t] = bitcast<vec4<u32>>(sums[i]);
    }
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            for (var i = 0u; i < SUMS; i++) {
                sums[i] += bitcast<vec4<f32>>(shared_quads[i * THREADS + t + half]);
                shared_quads[i * THREADS + t] = bitcast<vec4<u32>>(sums[i]);
            }
        }
    }
    workgroupBarrier();
}
#endif

// Every stride-th thread of a group has a part of its sums.
fn total_of(slot: u32, stride: u32) -> vec4<f32> {
    var sum = bitcast<vec4<f32>>(shared_quads[slot]);
    for (var lane = stride; lane < LANES; lane += stride) {
        sum += bitcast<vec4<f32>>(shared_quads[slot + lane]);
    }
    return sum;
}

#if GATE == 1
fn store_sums(workgroup_n: u32, first_m: u32, t: u32, stride: u32) {
    for (var i = t; i < GROUPS * M_ROWS; i += THREADS) {
        let group = i / M_ROWS;
        let slot = i % M_ROWS * THREADS + group * LANES;
        let first = total_of(slot, stride);
        let second = total_of(slot + M_ROWS * THREADS, stride);
        let m = first_m + i % M_ROWS;
        let n = workgroup_n + group * COLUMNS;
        for (var j = 0u; j < 4u && m < problem.M && n + j < problem.n_count; j++) {
            store_gated(m, problem.n_begin + n + j, first[j], second[j]);
        }
    }
}
#else
fn store_sums(workgroup_n: u32, first_m: u32, t: u32, stride: u32) {
    for (var i = t; i < GROUPS * SUMS; i += THREADS) {
        let group = i / SUMS;
        let sum = total_of(i % SUMS * THREADS + group * LANES, stride);
        let m = first_m + i % M_ROWS;
        let n = workgroup_n + group * COLUMNS + i % SUMS / M_ROWS * 4u;
        store_row(m, n, sum);
    }
}
#endif
