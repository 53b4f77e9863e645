// Attention of few queries to many keys (decoding). A workgroup of 128 takes ROWS rows of a head and one
// part of the keys; all rows share the keys and values that it loads. Bindings: attention.inc.wgsl,
// attention_scores.inc.wgsl.
// Dispatch: heads * ceil(rows / ROWS) * parts * ceil(v_dim / 512) workgroups. No features.
// Of several parts, (row i of head h, part p) gives v_dim sums of weighted values, the maximum and the sum
// of weights at ((h * rows + i) * parts + p) * (v_dim + 2) of y, for attention_merge.wgsl.

#param ROWS 1 2 4 8

#include "attention_scores.inc.wgsl"
#include "grid.inc.wgsl"

const THREADS = 128u;
const TILE = 64u; // keys at a time
// Threads that share the dot products of a key, and keys of a thread.
#if ROWS == 8
const LANES = 4u;
const KEYS = 2u;
#else
const LANES = 8u;
const KEYS = 4u;
#endif
const SLOTS = THREADS / LANES;
const STEPS = 2u;  // vectors of a key that a thread loads at a time,
const VALUES = 8u; // and of values: loads that wait for memory together
const SCORES = ROWS * TILE;
// Scores of a lane are followed by 4 that are not used, so that lanes lie in other banks.
const LANE_STRIDE = SCORES + 4u;
#if ROWS == 8
const GROUP = 4u; // rows whose sums of values are put together at a time
#else
const GROUP = u32(ROWS);
#endif

const POOL = max(LANES * LANE_STRIDE, GROUP * THREADS * 4u);

var<workgroup> pool: array<f32, POOL>; // dot products of lanes; in the end sums of shares
var<workgroup> weights: array<f32, SCORES>;
var<workgroup> eighths: array<f32, ROWS * 8>; // of each row: maxima, in the end sums
var<workgroup> maxima: array<f32, ROWS>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) size: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let k_blocks = (u.k_dim + 3u) / 4u;
    let v_blocks = (u.v_dim + 3u) / 4u;
    let blocks = (u.rows + ROWS - 1u) / ROWS;
    let slices = (v_blocks + THREADS - 1u) / THREADS;
    var unit = grid_index(id, size);
    let part = unit % u.parts;
    unit /= u.parts;
    let slice = unit % slices;
    unit /= slices;
    let first = unit % blocks * ROWS;
    let kv = unit / blocks;
    if kv >= u.heads {
        return;
    }
    let last = min(first + ROWS, u.rows) - 1u;
    let begin = max(visible(first / u.group).x, u.first_key + part * u.part_keys);
    let end = min(visible(last / u.group).y, u.first_key + (part + 1u) * u.part_keys);

    // Weighted values: this thread sums column `column` over every n_shares-th key.
    let columns = min(v_blocks - slice * THREADS, THREADS);
    let n_shares = THREADS / columns;
    let share = thread / columns;
    let column = slice * THREADS + thread % columns;
    var top: array<f32, ROWS>;
    var acc: array<vec4<f32>, ROWS>;
    var q_at: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        top[r] = UNSEEN;
        acc[r] = vec4<f32>();
        let row = min(first + r, last);
        q_at[r] = u.q.base + (kv * u.group + row % u.group) * u.q.head + row / u.group * u.q.token;
    }
    let k_at = u.k.base + kv * u.k.head;
    let v_at = u.v.base + kv * u.v.head;
    let lane = thread % LANES;
    let slot = thread / LANES;
    var sum = 0.0; // of this thread's eighth of the weights of row thread / 8

    for (var tile = begin; tile < end; tile += TILE) {
        // The first values are on their way while scores are computed.
        var v: array<vec4<f32>, VALUES>;
        for (var j = 0u; j < VALUES; j++) {
            let t = min(tile + share + j * n_shares, end - 1u);
            v[j] = load_value(v_at + t * u.v.token, column, u.v_dim);
        }
        var x = array<array<f32, ROWS>, KEYS>();
        for (var first_step = lane; first_step < k_blocks; first_step += LANES * STEPS) {
            var q: array<array<vec4<f32>, ROWS>, STEPS>;
            var k: array<array<vec4<f32>, KEYS>, STEPS>;
            for (var step = 0u; step < STEPS; step++) {
                let i = first_step + step * LANES;
                let there = min(i, k_blocks - 1u);
                for (var r = 0u; r < ROWS; r++) {
                    let loaded = load_query(q_at[r], there, u.k_dim);
                    q[step][r] = select(vec4<f32>(), loaded, i < k_blocks);
                }
                for (var j = 0u; j < KEYS; j++) {
                    let t = min(tile + slot + j * SLOTS, end - 1u);
                    k[step][j] = load_key(k_at + t * u.k.token, there, u.k_dim);
                }
            }
            for (var step = 0u; step < STEPS; step++) {
                for (var j = 0u; j < KEYS; j++) {
                    for (var r = 0u; r < ROWS; r++) {
                        x[j][r] += dot(q[step][r], k[step][j]);
                    }
                }
            }
        }
        for (var j = 0u; j < KEYS; j++) {
            for (var r = 0u; r < ROWS; r++) {
                pool[lane * LANE_STRIDE + r * TILE + slot + j * SLOTS] = x[j][r];
            }
        }
        workgroupBarrier();
        for (var i = thread; i < SCORES; i += THREADS) {
            let row = min(first + i / TILE, last);
            let t = tile + i % TILE;
            let seen = visible(row / u.group);
            var s = UNSEEN;
            if t >= seen.x && t < min(seen.y, end) {
                s = 0.0;
                for (var l = 0u; l < LANES; l++) {
                    s += pool[l * LANE_STRIDE + i];
                }
                s = score(s, kv, row, t);
            }
            weights[i] = s;
        }
        workgroupBarrier();
        if thread < ROWS * 8 {
            var most = UNSEEN;
            for (var i = 0u; i < 8u; i++) {
                most = max(most, weights[thread * 8u + i]);
            }
            eighths[thread] = most;
        }
        workgroupBarrier();
        var change: array<f32, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            var most = top[r];
            for (var i = 0u; i < 8u; i++) {
                most = max(most, eighths[r * 8u + i]);
            }
            change[r] = shrink(top[r], most);
            acc[r] *= change[r];
            top[r] = most;
            for (var i = thread; i < TILE; i += THREADS) {
                weights[r * TILE + i] = weight(weights[r * TILE + i], most);
            }
        }
        workgroupBarrier();
        if thread < ROWS * 8 {
            sum *= change[thread / 8u];
            for (var i = 0u; i < 8u; i++) {
                sum += weights[thread * 8u + i];
            }
        }
        let n = select(0u, min(TILE, end - tile), share < n_shares);
        for (var first_value = share; first_value < n; first_value += VALUES * n_shares) {
            if first_value != share {
                for (var j = 0u; j < VALUES; j++) {
                    let t = min(tile + first_value + j * n_shares, end - 1u);
                    v[j] = load_value(v_at + t * u.v.token, column, u.v_dim);
                }
            }
            for (var j = 0u; j < VALUES; j++) {
                let i = first_value + j * n_shares;
                for (var r = 0u; r < ROWS; r++) {
                    acc[r] += select(0.0, weights[r * TILE + min(i, TILE - 1u)], i < n) * v[j];
                }
            }
        }
    }

    workgroupBarrier();
    if thread < ROWS * 8 {
        eighths[thread] = sum;
    }
    if thread == 0u {
        maxima = top;
    }
    for (var r0 = 0u; r0 < ROWS; r0 += GROUP) {
        workgroupBarrier();
        for (var r = 0u; r < GROUP; r++) {
            for (var e = 0u; e < 4u; e++) {
                pool[(r * 4u + e) * THREADS + thread] = acc[r0 + r][e];
            }
        }
        workgroupBarrier();
        for (var i = thread; i < GROUP * columns; i += THREADS) {
            let r = i / columns;
            let row = first + r0 + r;
            if row > last {
                continue;
            }
            var total = vec4<f32>();
            for (var j = 0u; j < n_shares; j++) {
                for (var e = 0u; e < 4u; e++) {
                    total[e] += pool[(r * 4u + e) * THREADS + j * columns + i % columns];
                }
            }
            var row_sum = 0.0;
            for (var j = 0u; j < 8u; j++) {
                row_sum += eighths[(r0 + r) * 8u + j];
            }
            write(kv, row, part, slice * THREADS + i % columns, total, maxima[r0 + r], row_sum);
        }
    }
}

// Column `column` (of four) of a row's sums.
fn write(kv: u32, row: u32, part: u32, column: u32, total: vec4<f32>, top: f32, sum: f32) {
    let n = min(4u, u.v_dim - 4u * column);
    if u.parts > 1u {
        let at = ((kv * u.rows + row) * u.parts + part) * (u.v_dim + 2u);
        for (var e = 0u; e < n; e++) {
            y[at + 4u * column + e] = total[e];
        }
        if column == 0u {
            y[at + u.v_dim] = top;
            y[at + u.v_dim + 1u] = sum;
        }
        return;
    }
    let h = kv * u.group + row % u.group;
    let at = u.y.base + h * u.y.head + row / u.group * u.y.token;
    let factor = normalizer(h, top, sum);
    for (var e = 0u; e < n; e++) {
        y[at + 4u * column + e] = factor * total[e];
    }
}
