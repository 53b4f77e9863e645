// Attention of many queries (prompts) on software adapters, where workgroup memory and barriers cost most: three
// dispatches whose threads share nothing. FORM 0: a thread finds the score of a key for a row; 1: it makes weights of
// a row's scores; 2: it sums four elements of a row's output. Bindings: attention.inc.wgsl,
// attention_scores.inc.wgsl; 8 scores, then weights [heads, part_rows, part_keys].
// Dispatch: heads * part_rows * part_keys threads in workgroups of 16, then heads * part_rows, then that by
// ceil(v_dim / 4). No features.

#param FORM 0..2

#include "attention_scores.inc.wgsl"
#include "grid.inc.wgsl"

@group(0) @binding(8) var<storage, read_write> scores: array<f32>;

const THREADS = 16u;

// Where the scores of row `row` of head kv begin.
fn scores_at(kv: u32, row: u32) -> u32 {
    return (kv * u.part_rows + row - u.first_row) * u.part_keys;
}

#if FORM == 0
fn dot_of(kv: u32, row: u32, t: u32) -> f32 {
    let q_at = u.q.base + head_of(kv, row) * u.q.head + query_of(row) * u.q.token;
    let k_at = u.k.base + kv * u.k.head + t * u.k.token;
    var sums = vec4<f32>();
    for (var i = 0u; i < (u.k_dim + 3u) / 4u; i++) {
        sums += load_query(q_at, i, u.k_dim) * load_key(k_at, i, u.k_dim);
    }
    return (sums.x + sums.y) + (sums.z + sums.w);
}

fn run(kv: u32, row: u32, i: u32) {
    let t = u.first_key + i;
    let seen = visible(query_of(row));
    var s = UNSEEN;
    if t >= seen.x && t < seen.y {
        s = score(dot_of(kv, row, t), kv, row, t);
    }
    scores[scores_at(kv, row) + i] = s;
}
#elif FORM == 1
fn run(kv: u32, row: u32, i: u32) {
    let at = scores_at(kv, row);
    var top = UNSEEN;
    for (var k = 0u; k < u.part_keys; k++) {
        top = max(top, scores[at + k]);
    }
    var sum = 0.0;
    for (var k = 0u; k < u.part_keys; k++) {
        let w = weight(scores[at + k], top);
        scores[at + k] = w;
        sum += w;
    }
    let factor = normalizer(head_of(kv, row), top, sum);
    for (var k = 0u; k < u.part_keys; k++) {
        scores[at + k] *= factor;
    }
}
#else
fn run(kv: u32, row: u32, column: u32) {
    let seen = visible(query_of(row));
    let at = scores_at(kv, row) - u.first_key;
    let v_at = u.v.base + kv * u.v.head;
    var sums = vec4<f32>();
    for (var t = max(seen.x, u.first_key); t < seen.y; t++) {
        sums += scores[at + t] * load_value(v_at + t * u.v.token, column, u.v_dim);
    }
    let to = u.y.base + head_of(kv, row) * u.y.head + query_of(row) * u.y.token + 4u * column;
    for (var e = 0u; e < min(4u, u.v_dim - 4u * column); e++) {
        y[to + e] = sums[e];
    }
}
#endif

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) size: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
#if FORM == 0
    let of_row = u.part_keys;
#elif FORM == 1
    let of_row = 1u;
#else
    let of_row = (u.v_dim + 3u) / 4u;
#endif
    let i = grid_index(id, size) * THREADS + thread;
    let row = i / of_row;
    if row < u.heads * u.part_rows {
        run(row / u.part_rows, u.first_row + row % u.part_rows, i % of_row);
    }
}
