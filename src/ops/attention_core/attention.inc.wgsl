// Scaled dot-product attention of one batch row, as attention_core.h defines it: what a problem is, where
// its operands lie, which keys a query sees, and how a dot product becomes a score.
// @binding(0) uniforms; (1) queries, (2) keys, (3) values, each at base + head * x + token * y; (4) the
// outputs, or partial results; (5), (6) terms that are added to scores; (7) sinks [heads]. What a problem
// lacks is bound to any buffer and not read.

// Whether keys and values are float16, two to a word.
#param HALF 0 1
// Whether everything is aligned to four elements: dims, bases and strides are multiples of 4.
#param VEC 0 1

#include "math.inc.wgsl"

struct Place {
    base: u32,
    head: u32,  // strides in elements
    token: u32, // of a term: of queries
    column: u32, // of a term alone
}

struct Attention {
    heads: u32, // of keys and values
    group: u32, // query heads to each of them
    rows: u32,  // group * queries: row i of a head is query i / group of its query head i % group
    k_dim: u32,
    v_dim: u32,
    keys: u32,
    first_query: i32, // key index of query 0
    left: i32,        // how far a query sees; negative: all
    right: i32,
    clamps: u32,  // a query beyond the last key stands where that key is
    n_terms: u32, // 0 to 2
    sinks: u32,   // 0: none, 1: of score 0, 2: a score for each head
    scale: f32,
    softcap: f32,   // 0: none
    first_key: u32, // where the first part begins
    part_keys: u32, // keys of a part
    parts: u32,     // above 1: partial results
    @align(16) q: Place,
    k: Place,
    v: Place,
    y: Place,
    terms: array<Place, 2>,
}
@group(0) @binding(0) var<uniform> u: Attention;

#if VEC == 1
@group(0) @binding(1) var<storage, read> queries: array<vec4<f32>>;
#else
@group(0) @binding(1) var<storage, read> queries: array<f32>;
#endif
#if HALF == 1 && VEC == 1
@group(0) @binding(2) var<storage, read> keys: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> values: array<vec2<u32>>;
#elif HALF == 1
@group(0) @binding(2) var<storage, read> keys: array<u32>;
@group(0) @binding(3) var<storage, read> values: array<u32>;
#elif VEC == 1
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<f32>>;
#else
@group(0) @binding(2) var<storage, read> keys: array<f32>;
@group(0) @binding(3) var<storage, read> values: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> term0: array<f32>;
@group(0) @binding(6) var<storage, read> term1: array<f32>;
@group(0) @binding(7) var<storage, read> sink_scores: array<f32>;

// The score of a key that is not seen: below every score.
const UNSEEN = -3.4e38;
const LOWEST = -3.3e38;

// Elements 4 i to 4 i + 3 of the row at `at`; zeros from n on.
fn load_query(at: u32, i: u32, n: u32) -> vec4<f32> {
#if VEC == 1
    return queries[at / 4u + i];
#else
    var x = vec4<f32>();
    for (var e = 0u; e < min(4u, n - 4u * i); e++) {
        x[e] = queries[at + 4u * i + e];
    }
    return x;
#endif
}
#if HALF == 1
fn halves(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
#endif
fn load_key(at: u32, i: u32, n: u32) -> vec4<f32> {
#if HALF == 1 && VEC == 1
    return halves(keys[at / 4u + i]);
#elif HALF == 1
    let word = at / 2u + 2u * i;
    let second = 4u * i + 2u < n;
    return halves(vec2<u32>(keys[word], select(0u, keys[select(word, word + 1u, second)], second)));
#elif VEC == 1
    return keys[at / 4u + i];
#else
    var x = vec4<f32>();
    for (var e = 0u; e < min(4u, n - 4u * i); e++) {
        x[e] = keys[at + 4u * i + e];
    }
    return x;
#endif
}
fn load_value(at: u32, i: u32, n: u32) -> vec4<f32> {
#if HALF == 1 && VEC == 1
    return halves(values[at / 4u + i]);
#elif HALF == 1
    let word = at / 2u + 2u * i;
    let second = 4u * i + 2u < n;
    return halves(vec2<u32>(values[word], select(0u, values[select(word, word + 1u, second)], second)));
#elif VEC == 1
    return values[at / 4u + i];
#else
    var x = vec4<f32>();
    for (var e = 0u; e < min(4u, n - 4u * i); e++) {
        x[e] = values[at + 4u * i + e];
    }
    return x;
#endif
}

// The keys [begin, end) that query s sees; begin <= end.
fn visible(s: u32) -> vec2<u32> {
    let n = i32(u.keys);
    var at = u.first_query + i32(s);
    if u.clamps == 1u {
        at = min(at, n - 1);
    }
    var begin = 0;
    var end = n;
    if u.right >= 0 {
        end = max(min(at + u.right + 1, n), 0);
    }
    if u.left >= 0 {
        begin = max(at - u.left, 0);
    }
    return vec2<u32>(u32(min(begin, end)), u32(end));
}

// The score of key t for row `row` of a head, from the dot product; UNSEEN where a term is -infinity.
fn score(dot: f32, kv: u32, row: u32, t: u32) -> f32 {
    var x = dot * u.scale;
    if u.softcap > 0.0 {
        x = u.softcap * math_tanh(x / u.softcap);
    }
    if u.n_terms == 0u {
        return x;
    }
    let h = kv * u.group + row % u.group;
    let s = row / u.group;
    let first = u.terms[0];
    let a = term0[first.base + h * first.head + s * first.token + t * first.column];
    var b = 0.0;
    if u.n_terms == 2u {
        let second = u.terms[1];
        b = term1[second.base + h * second.head + s * second.token + t * second.column];
    }
    // Two of the lowest numbers added are the lowest number, not a key that is not seen.
    let forbidden = bitcast<u32>(a) == 0xff800000u || bitcast<u32>(b) == 0xff800000u;
    return select(clamp(x + a + b, LOWEST, -LOWEST), UNSEEN, forbidden);
}

// e^(x - top), 0 for keys that are not seen.
fn weight(x: f32, top: f32) -> f32 {
    return select(0.0, math_exp(x - top), x >= LOWEST);
}

// What sums relative to the maximum `old` are multiplied by when it becomes `top`.
fn shrink(old: f32, top: f32) -> f32 {
    return math_exp(max(old - top, -104.0));
}

// What the sums of weighted values of query head h become outputs by, given the maximum and the sum of
// weights: 0 for a query that sees nothing.
fn normalizer(h: u32, top: f32, sum: f32) -> f32 {
    if u.sinks == 0u {
        return select(1.0 / sum, 0.0, sum == 0.0);
    }
    var sink = 0.0;
    if u.sinks == 2u {
        sink = sink_scores[h];
    }
    let most = max(top, sink);
    let change = shrink(top, most);
    return change / (sum * change + weight(sink, most));
}
