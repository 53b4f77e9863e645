// Attention of few queries to many keys (decoding). A workgroup of 128 takes 4 rows of a head, the components
// of vectors here, and one part of the keys; all rows share the keys and values that it loads. Bindings:
// attention.inc.wgsl, attention_scores.inc.wgsl.
// Dispatch: parts x ceil(rows / 4) x heads * ceil(v_dim / 512) workgroups. No features.
// Of several parts, (row i of head h, part p) gives v_dim sums of weighted values, the maximum and the sum
// of weights at ((h * rows + i) * parts + p) * (v_dim + 2) of y, for attention_merge.wgsl.

#param APPEND 0..2 // 1: the one query's key and value are not in the cache yet; 2: there are norms besides
#include "attention_scores.inc.wgsl"

const THREADS = 128u;
const TILE = 64u; // keys at a time
const LANES = 8u; // threads that share the dot products of a key
const SLOTS = THREADS / LANES;
const KEYS = 4u; // of a thread
// Scores of a lane are followed by one that is not used, so that lanes lie in other banks.
const LANE_STRIDE = TILE + 1u;

var<workgroup> pool: array<vec4<f32>, 4u * THREADS + 8u>; // dot products of lanes; in the end sums of shares
var<workgroup> weights: array<vec4<f32>, TILE>;
var<workgroup> eighths: array<vec4<f32>, 8>; // maxima, then sums, of 8 keys each

#if APPEND == 0
// A vector of each row's query.
fn load_queries(at: vec4<u32>, i: u32) -> mat4x4<f32> {
    return mat4x4<f32>(load_query(at.x, i, u.k_dim), load_query(at.y, i, u.k_dim),
                       load_query(at.z, i, u.k_dim), load_query(at.w, i, u.k_dim));
}
#endif

// Four values, `step` keys apart.
struct Values {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}
fn load_values(at: u32, t: u32, step: u32, last: u32, column: u32) -> Values {
    return Values(load_value(at + min(t, last) * u.v.token, column, u.v_dim),
                  load_value(at + min(t + step, last) * u.v.token, column, u.v_dim),
                  load_value(at + min(t + 2u * step, last) * u.v.token, column, u.v_dim),
                  load_value(at + min(t + 3u * step, last) * u.v.token, column, u.v_dim));
}

// The weights of key i of the tile; zeros from n on.
fn weights_of(i: u32, n: u32) -> vec4<f32> {
    return select(vec4<f32>(), weights[min(i, TILE - 1u)], i < n);
}

fn shrinks(old: vec4<f32>, top: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(shrink(old.x, top.x), shrink(old.y, top.y), shrink(old.z, top.z),
                     shrink(old.w, top.w));
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let k_blocks = (u.k_dim + 3u) / 4u;
    let v_blocks = (u.v_dim + 3u) / 4u;
    let part = id.x;
    let first = id.y * 4u;
    var kv = id.z;
    var slice = 0u; // of THREADS vectors of an output row
    while kv >= u.heads {
        kv -= u.heads;
        slice++;
    }
    let last = min(first + 4u, u.rows) - 1u;
    let rows = min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(last));
    let q_at = vec4<u32>(query_at(kv, rows.x), query_at(kv, rows.y), query_at(kv, rows.z),
                         query_at(kv, rows.w));
    let seen0 = visible(query_of(rows.x));
    let seen1 = visible(query_of(rows.y));
    let seen2 = visible(query_of(rows.z));
    let seen3 = visible(query_of(rows.w));
    let begin = max(seen0.x, u.first_key + part * u.part_keys);
    let end = min(seen3.y, u.first_key + (part + 1u) * u.part_keys);
    let k_at = u.k.base + kv * u.k.head;
    let v_at = u.v.base + kv * u.v.head;
#if APPEND != 0
    let is_last = part == u.parts - 1u;
    take_new(q_at, kv, is_last, is_last && id.y == 0u, thread);
#endif

    // Weighted values: this thread sums column `column` over every n_shares-th key.
    let columns = min(v_blocks - slice * THREADS, THREADS);
    let n_shares = THREADS / columns;
    let share = thread / columns;
    let column = slice * THREADS + thread - share * columns;
    let lane = thread % LANES;
    let slot = thread / LANES;
    var top = vec4<f32>(UNSEEN);
    var sum = vec4<f32>(); // of eighth `thread` of the weights
    var acc0 = vec4<f32>();
    var acc1 = vec4<f32>();
    var acc2 = vec4<f32>();
    var acc3 = vec4<f32>();

    for (var tile = begin; tile < end; tile += TILE) {
        // The first values are on their way while scores are computed.
        let to = end - 1u;
        var v = load_values(v_at, tile + share, n_shares, to, column);
        var w = load_values(v_at, tile + share + 4u * n_shares, n_shares, to, column);
        let at0 = k_at + min(tile + slot, to) * u.k.token;
        let at1 = k_at + min(tile + slot + SLOTS, to) * u.k.token;
        let at2 = k_at + min(tile + slot + 2u * SLOTS, to) * u.k.token;
        let at3 = k_at + min(tile + slot + 3u * SLOTS, to) * u.k.token;
        var x0 = vec4<f32>();
        var x1 = vec4<f32>();
        var x2 = vec4<f32>();
        var x3 = vec4<f32>();
        for (var i = lane; i < k_blocks; i += LANES) {
            let q = load_queries(q_at, i);
            let k0 = load_key(at0, i, u.k_dim);
            let k1 = load_key(at1, i, u.k_dim);
            let k2 = load_key(at2, i, u.k_dim);
            let k3 = load_key(at3, i, u.k_dim);
            x0 += k0 * q; // the dot products of a key with the four queries
            x1 += k1 * q;
            x2 += k2 * q;
            x3 += k3 * q;
        }
        pool[lane * LANE_STRIDE + slot] = x0;
        pool[lane * LANE_STRIDE + slot + SLOTS] = x1;
        pool[lane * LANE_STRIDE + slot + 2u * SLOTS] = x2;
        pool[lane * LANE_STRIDE + slot + 3u * SLOTS] = x3;
        workgroupBarrier();
        var s = vec4<f32>(UNSEEN);
        let t = tile + thread;
        if thread < TILE && t < end {
            var x = vec4<f32>();
            for (var l = 0u; l < LANES; l++) {
                x += pool[l * LANE_STRIDE + thread];
            }
            s = vec4<f32>(score_if(seen0, x.x, kv, rows.x, t), score_if(seen1, x.y, kv, rows.y, t),
                          score_if(seen2, x.z, kv, rows.z, t), score_if(seen3, x.w, kv, rows.w, t));
        }
        if thread < TILE {
            weights[thread] = s;
        }
        workgroupBarrier();
        if thread < 8u {
            var most = weights[thread * 8u];
            for (var i = 1u; i < 8u; i++) {
                most = max(most, weights[thread * 8u + i]);
            }
            eighths[thread] = most;
        }
        workgroupBarrier();
        var most = top;
        for (var i = 0u; i < 8u; i++) {
            most = max(most, eighths[i]);
        }
        let change = shrinks(top, most);
        top = most;
        acc0 *= change.x;
        acc1 *= change.y;
        acc2 *= change.z;
        acc3 *= change.w;
        if thread < TILE {
            weights[thread] = vec4<f32>(weight(s.x, most.x), weight(s.y, most.y),
                                        weight(s.z, most.z), weight(s.w, most.w));
        }
        workgroupBarrier();
        if thread < 8u {
            sum *= change;
            for (var i = 0u; i < 8u; i++) {
                sum += weights[thread * 8u + i];
            }
        }
        let n = select(0u, min(TILE, end - tile), share < n_shares);
        for (var i = share; i < n; i += 8u * n_shares) {
            if i != share {
                v = load_values(v_at, tile + i, n_shares, to, column);
                w = load_values(v_at, tile + i + 4u * n_shares, n_shares, to, column);
            }
            let values = array<vec4<f32>, 8>(v.a, v.b, v.c, v.d, w.a, w.b, w.c, w.d);
            for (var j = 0u; j < 8u; j++) {
                let by = weights_of(i + j * n_shares, n);
                acc0 += by.x * values[j];
                acc1 += by.y * values[j];
                acc2 += by.z * values[j];
                acc3 += by.w * values[j];
            }
        }
    }

    workgroupBarrier();
    if thread < 8u {
        eighths[thread] = sum;
    }
    pool[thread] = acc0;
    pool[THREADS + thread] = acc1;
    pool[2u * THREADS + thread] = acc2;
    pool[3u * THREADS + thread] = acc3;
    workgroupBarrier();
    for (var i = thread; i < 4u * columns; i += THREADS) {
        let r = i / columns;
        if first + r > last {
            continue;
        }
        let own = i - r * columns;
        var total = vec4<f32>();
        for (var j = 0u; j < n_shares; j++) {
            total += pool[r * THREADS + j * columns + own];
        }
        var row_sum = 0.0;
        for (var j = 0u; j < 8u; j++) {
            row_sum += eighths[j][r];
        }
        write(kv, first + r, part, slice * THREADS + own, total, top[r], row_sum);
    }
}

// Where the query of a row begins.
fn query_at(kv: u32, row: u32) -> u32 {
    return u.q.base + head_of(kv, row) * u.q.head + query_of(row) * u.q.token;
}

fn score_if(seen: vec2<u32>, product: f32, kv: u32, row: u32, t: u32) -> f32 {
    if t >= seen.x && t < seen.y {
        return score(product, kv, row, t);
    }
    return UNSEEN;
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
    let h = head_of(kv, row);
    let at = u.y.base + h * u.y.head + query_of(row) * u.y.token;
    let factor = normalizer(h, top, sum);
    for (var e = 0u; e < n; e++) {
        y[at + 4u * column + e] = factor * total[e];
    }
}
