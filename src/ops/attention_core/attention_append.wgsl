// New tokens of one batch row on their way to attention: queries, keys and values are normalised, turned
// by their positions, or biased; queries go to a buffer of their own, keys and values behind the rows
// that a cache holds. A workgroup of 64 takes one head of one token.
// @binding(0) uniforms; (1) queries, (2) keys, (3) values at base + head * x + token * y; (4), (5)
// cosines and sines [positions, half]; (6) norm's weights [k_dim], or biases [heads * k_dim of
// queries, of keys, heads * v_dim of values]; (7) positions [tokens]; (8) queries out, (9), (10) rows of
// keys and values.
// Dispatch: max(tokens, rows) * (heads + 2 * kv_heads) workgroups; FORM 1 has heads alone, 2 kv_heads. Rows
// of HALF have even dims. No features.

// 0: queries, keys and values turn. 1: queries alone, also normalised. 2: keys and values alone, also
// normalised (keys). 3: queries, keys and values get biases.
#param FORM 0..3
#param HALF 0 1

#include "grid.inc.wgsl"
#include "half.inc.wgsl"
#include "rotary.inc.wgsl"

struct Place {
    base: u32,
    head: u32, // strides in elements
    token: u32,
    unused: u32,
}

struct Append {
    tokens: u32,    // queries
    heads: u32,     // of queries that are wanted
    kv_heads: u32,
    k_dim: u32,
    v_dim: u32,
    stored: u32,    // tokens whose keys and values are stored
    rows: u32,      // rows of keys and values to write: zeros from `stored` on
    position: u32,  // of token 0, where there are no positions
    has_positions: u32,
    has_norm: u32,
    epsilon: f32,
    biases: u32,    // 1: keys and values have biases too
    rotary: Rotary,
    @align(16) q: Place,
    k: Place,
    v: Place,
    q_out: Place,
    k_out: Place,
    v_out: Place,
}
@group(0) @binding(0) var<uniform> u: Append;
#if FORM != 2
@group(0) @binding(1) var<storage, read> queries: array<f32>;
@group(0) @binding(8) var<storage, read_write> queries_out: array<f32>;
#endif
#if FORM != 1
@group(0) @binding(2) var<storage, read> keys: array<f32>;
@group(0) @binding(3) var<storage, read> values: array<f32>;
#if HALF == 1
@group(0) @binding(9) var<storage, read_write> key_rows: array<u32>;
@group(0) @binding(10) var<storage, read_write> value_rows: array<u32>;
#else
@group(0) @binding(9) var<storage, read_write> key_rows: array<f32>;
@group(0) @binding(10) var<storage, read_write> value_rows: array<f32>;
#endif
#endif
#if FORM != 3
@group(0) @binding(4) var<storage, read> cosines: array<f32>;
@group(0) @binding(5) var<storage, read> sines: array<f32>;
#endif
#if FORM != 0
@group(0) @binding(6) var<storage, read> weights: array<f32>;
#endif
#if FORM == 1 || FORM == 2
@group(0) @binding(7) var<storage, read> positions: array<i32>;
#endif

const QUERY = 0u;
const KEY = 1u;
const VALUE = 2u;

#if FORM == 1 || FORM == 2
var<workgroup> squares: array<f32, 64>;
#endif

fn source(kind: u32, at: u32) -> f32 {
#if FORM != 2
    if kind == QUERY {
        return queries[at];
    }
#endif
#if FORM != 1
    if kind == KEY {
        return keys[at];
    }
    return values[at];
#else
    return 0.0;
#endif
}

// Element d of a head before it turns; scale: of the norm.
fn element(kind: u32, head: u32, at: u32, d: u32, scale: f32) -> f32 {
    let x = source(kind, at + d);
#if FORM == 1 || FORM == 2
    if u.has_norm == 1u && kind != VALUE {
        return x * scale * weights[d];
    }
#elif FORM == 3
    if kind == QUERY {
        return x + weights[head * u.k_dim + d];
    }
    if u.biases == 1u {
        let first = u.heads * u.k_dim;
        let of_value = first + u.kv_heads * u.k_dim + head * u.v_dim;
        return x + weights[select(first + head * u.k_dim, of_value, kind == VALUE) + d];
    }
#endif
    return x;
}

fn finished(kind: u32, head: u32, at: u32, d: u32, scale: f32, angles: u32) -> f32 {
    let x = element(kind, head, at, d, scale);
#if FORM != 3
    if kind != VALUE && d < 2u * u.rotary.half {
        let t = rotary_turn(u.rotary, d);
        return rotary_turned(t, x, element(kind, head, at, t.partner, scale),
                             cosines[angles + t.pair], sines[angles + t.pair]);
    }
#endif
    return x;
}

// Elements d and d + 1 of a row of n at `at`.
fn store(kind: u32, at: u32, d: u32, n: u32, pair: vec2<f32>) {
#if FORM != 2
    if kind == QUERY {
        queries_out[at + d] = pair.x;
        if d + 1u < n {
            queries_out[at + d + 1u] = pair.y;
        }
        return;
    }
#endif
#if FORM != 1 && HALF == 1
    let word = half_bits(pair.x) | (half_bits(pair.y) << 16u);
    if kind == KEY {
        key_rows[(at + d) / 2u] = word;
    } else {
        value_rows[(at + d) / 2u] = word;
    }
#elif FORM != 1
    for (var e = 0u; e < min(2u, n - d); e++) {
        if kind == KEY {
            key_rows[at + d + e] = pair[e];
        } else {
            value_rows[at + d + e] = pair[e];
        }
    }
#endif
}

#if FORM == 1 || FORM == 2
// 1 / sqrt(mean of squares + epsilon) of the row at `at`.
fn norm_scale(kind: u32, at: u32, thread: u32) -> f32 {
    var sum = 0.0;
    for (var d = thread; d < u.k_dim; d += 64u) {
        let x = source(kind, at + d);
        sum += x * x;
    }
    squares[thread] = sum;
    for (var n = 32u; n > 0u; n /= 2u) {
        workgroupBarrier();
        if thread < n {
            squares[thread] += squares[thread + n];
        }
    }
    workgroupBarrier();
    return 1.0 / sqrt(squares[0] / f32(u.k_dim) + u.epsilon);
}
#endif

fn place_in(kind: u32) -> Place {
    if kind == QUERY {
        return u.q;
    }
    if kind == KEY {
        return u.k;
    }
    return u.v;
}

fn place_out(kind: u32) -> Place {
    if kind == QUERY {
        return u.q_out;
    }
    if kind == KEY {
        return u.k_out;
    }
    return u.v_out;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) size: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
#if FORM == 1
    let n_heads = u.heads;
#elif FORM == 2
    let n_heads = 2u * u.kv_heads;
#else
    let n_heads = u.heads + 2u * u.kv_heads;
#endif
    let unit = grid_index(id, size);
    let token = unit / n_heads;
    var head = unit % n_heads;
    var kind = QUERY;
#if FORM == 2
    kind = KEY + head / u.kv_heads;
    head %= u.kv_heads;
#elif FORM != 1
    if head >= u.heads {
        kind = KEY + (head - u.heads) / u.kv_heads;
        head = (head - u.heads) % u.kv_heads;
    }
#endif
    if token >= select(u.rows, u.tokens, kind == QUERY) {
        return;
    }
    let to = place_out(kind);
    let to_at = to.base + head * to.head + token * to.token;
    let n = select(u.k_dim, u.v_dim, kind == VALUE);
    if kind != QUERY && token >= u.stored {
        for (var d = 2u * thread; d < n; d += 128u) {
            store(kind, to_at, d, n, vec2<f32>());
        }
        return;
    }
    let origin = place_in(kind);
    let at = origin.base + head * origin.head + token * origin.token;
    var scale = 1.0;
    var position = u.position + token;
#if FORM == 1 || FORM == 2
    if u.has_norm == 1u && kind != VALUE {
        scale = norm_scale(kind, at, thread);
    }
    if u.has_positions == 1u {
        position = u32(positions[token]);
    }
#endif
    for (var d = 2u * thread; d < n; d += 128u) {
        var pair = vec2<f32>(finished(kind, head, at, d, scale, position * u.rotary.half), 0.0);
        if d + 1u < n {
            pair.y = finished(kind, head, at, d + 1u, scale, position * u.rotary.half);
        }
        store(kind, to_at, d, n, pair);
    }
}
