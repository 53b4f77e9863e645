// The operands of attention: which keys a query sees, and how a dot product becomes a score.
// @binding(1) to (3) attention_rows.inc.wgsl, or with APPEND attention_new.inc.wgsl; (5), (6) terms that are
// added to scores, or any buffers; with APPEND there are none. Dims are any; rows of HALF have even dims and
// begin at even elements.

// Whether keys and values are float16, two to a word.
#param HALF 0 1
// Whether everything is aligned to four elements: dims, bases and strides are multiples of 4.
#param VEC 0 1

#include "attention.inc.wgsl"

#if defined APPEND && APPEND != 0
#include "attention_new.inc.wgsl"
#else
#include "attention_rows.inc.wgsl"
@group(0) @binding(5) var<storage, read> term0: array<f32>;
@group(0) @binding(6) var<storage, read> term1: array<f32>;
#endif

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
#if defined APPEND && APPEND != 0
    return x;
#else
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
#endif
}
