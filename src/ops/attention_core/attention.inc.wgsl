// Scaled dot-product attention of one batch row, as attention_core.h defines it: what a problem is, and how
// weighted sums become outputs.
// @binding(0) uniforms; (4) outputs, or partial results; (7) sinks [heads], or any buffer.

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
    first_row: u32, // of a part of the rows, and how many: attention_alone.wgsl
    part_rows: u32,
    @align(16) q: Place,
    k: Place,
    v: Place,
    y: Place,
    terms: array<Place, 2>,
    // With APPEND: the new key and value, what turns it and the queries (rotary.inc.wgsl), and the norms.
    new_k: Place,
    new_v: Place,
    half: u32,
    interleaved: u32,
    angles: u32, // where the position's cosines and sines begin
    epsilon: f32,
}
@group(0) @binding(0) var<uniform> u: Attention;

@group(0) @binding(4) var<storage, read_write> y: array<f32>;
#if defined APPEND && APPEND == 2
fn sink_score(h: u32) -> f32 { // norms are bound in their place: a dispatch has 8 buffers
    return 0.0;
}
#else
@group(0) @binding(7) var<storage, read> sink_scores: array<f32>;

fn sink_score(h: u32) -> f32 {
    return sink_scores[h];
}
#endif

// The score of a key that is not seen: below every score.
const UNSEEN = -3.4e38;
const LOWEST = -3.3e38;

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
        sink = sink_score(h);
    }
    let most = max(top, sink);
    let change = shrink(top, most);
    return change / (sum * change + weight(sink, most));
}
