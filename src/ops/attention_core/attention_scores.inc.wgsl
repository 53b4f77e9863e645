// The operands of attention: which keys a query sees, and how a dot product becomes a score.
// @binding(1) queries, (2) keys, (3) values; (5), (6) terms that are added to scores, or any buffers. Dims are
// any; rows of HALF have even dims and begin at even elements.

// Whether keys and values are float16, two to a word.
#param HALF 0 1
// Whether everything is aligned to four elements: dims, bases and strides are multiples of 4.
#param VEC 0 1

#include "attention.inc.wgsl"

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
@group(0) @binding(5) var<storage, read> term0: array<f32>;
@group(0) @binding(6) var<storage, read> term1: array<f32>;

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

// Row `row` of key/value head kv: its query, and its query head. One query alone needs no division.
fn query_of(row: u32) -> u32 {
    if u.rows == u.group {
        return 0u;
    }
    return row / u.group;
}
fn head_of(kv: u32, row: u32) -> u32 {
    if u.rows == u.group {
        return kv * u.group + row;
    }
    return kv * u.group + row % u.group;
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
    let h = head_of(kv, row);
    let s = query_of(row);
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
