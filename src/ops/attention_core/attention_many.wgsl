// Attention of many queries (prompts). A workgroup of 256 takes 32 rows of a head and goes over the keys
// that they see, 32 at a time: queries, keys and values go through workgroup memory in slices of 32 dims
// (values: 64), scores stay there. Bindings: attention.inc.wgsl, attention_scores.inc.wgsl.
// Dispatch: heads * ceil(rows / 32) * ceil(v_dim / (64 SLICES)) workgroups. No features.

// Slices of 64 value dims that a workgroup sums.
#param SLICES 1 2 4

#include "attention_scores.inc.wgsl"
#include "grid.inc.wgsl"

const ROWS = 32u;
const TILE = 32u; // keys at a time
const STEP = 8u;  // vectors of a slice of queries and keys
const STRIDE = STEP + 1u; // of their rows, so that rows lie in other banks
const COLUMNS = 16u;      // vectors of a slice of values
const SCORE_STRIDE = TILE + 1u;

var<workgroup> pool: array<vec4<f32>, (ROWS + TILE) * STRIDE>; // queries and keys, or values
var<workgroup> scores: array<f32, ROWS * SCORE_STRIDE>;
var<workgroup> eighths: array<f32, ROWS * 8>;
var<workgroup> changes: array<f32, ROWS>;

// Four elements of value t; zeros past the last key or column, whose weights are 0.
fn load_or_zero(at: u32, t: u32, end: u32, column: u32) -> vec4<f32> {
    if t < end && 4u * column < u.v_dim {
        return load_value(at + t * u.v.token, column, u.v_dim);
    }
    return vec4<f32>();
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) size: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let k_blocks = (u.k_dim + 3u) / 4u;
    let v_blocks = (u.v_dim + 3u) / 4u;
    let blocks = (u.rows + ROWS - 1u) / ROWS;
    let column_parts = (v_blocks + SLICES * COLUMNS - 1u) / (SLICES * COLUMNS);
    var unit = grid_index(id, size);
    let first_column = unit % column_parts * SLICES * COLUMNS;
    unit /= column_parts;
    // The last rows see most keys: they come first.
    let first = (blocks - 1u - unit % blocks) * ROWS;
    let kv = unit / blocks;
    if kv >= u.heads {
        return;
    }
    let last = min(first + ROWS, u.rows) - 1u;
    let begin = visible(first / u.group).x;
    let end = visible(last / u.group).y;
    let k_at = u.k.base + kv * u.k.head;
    let v_at = u.v.base + kv * u.v.head;

    // Scores and sums of this thread: rows pair and pair + 16, keys and columns lane and lane + 16.
    let pair = thread / 16u;
    let lane = thread % 16u;
    // Softmax: row own, keys part and every 8th from there.
    let own = thread / 8u;
    let part = thread % 8u;
    let own_seen = visible(min(first + own, last) / u.group);
    // To workgroup memory: a vector of row own's query, and of key own.
    let own_row = min(first + own, last);
    let q_at = u.q.base + (kv * u.group + own_row % u.group) * u.q.head +
              own_row / u.group * u.q.token;
    var top = UNSEEN;
    var sum = 0.0;
    var acc: array<array<vec4<f32>, 2>, SLICES>;

    // What goes to workgroup memory is loaded a phase ahead: the first slice of a tile's queries and keys
    // with the values of the tile before, the first of its values with its last scores.
    var q = vec4<f32>();
    var k = vec4<f32>();
    var v0 = vec4<f32>();
    var v1 = vec4<f32>();
    if begin < end && part < k_blocks {
        q = load_query(q_at, part, u.k_dim);
        k = load_key(k_at + min(begin + own, end - 1u) * u.k.token, part, u.k_dim);
    }
    for (var tile = begin; tile < end; tile += TILE) {
        var x = vec4<f32>();
        for (var step = 0u; step < k_blocks; step += STEP) {
            workgroupBarrier();
            pool[own * STRIDE + part] = q;
            pool[(ROWS + own) * STRIDE + part] = k;
            workgroupBarrier();
            let i = step + STEP + part;
            if step + STEP >= k_blocks {
                v0 = load_or_zero(v_at, tile + pair, end, first_column + lane);
                v1 = load_or_zero(v_at, tile + pair + 16u, end, first_column + lane);
            } else if i < k_blocks {
                q = load_query(q_at, i, u.k_dim);
                k = load_key(k_at + min(tile + own, end - 1u) * u.k.token, i, u.k_dim);
            } else {
                q = vec4<f32>();
                k = vec4<f32>();
            }
            for (var d = 0u; d < STEP; d++) {
                let q0 = pool[pair * STRIDE + d];
                let q1 = pool[(pair + 16u) * STRIDE + d];
                let k0 = pool[(ROWS + lane) * STRIDE + d];
                let k1 = pool[(ROWS + lane + 16u) * STRIDE + d];
                x += vec4<f32>(dot(q0, k0), dot(q0, k1), dot(q1, k0), dot(q1, k1));
            }
        }
        scores[pair * SCORE_STRIDE + lane] = x.x;
        scores[pair * SCORE_STRIDE + lane + 16u] = x.y;
        scores[(pair + 16u) * SCORE_STRIDE + lane] = x.z;
        scores[(pair + 16u) * SCORE_STRIDE + lane + 16u] = x.w;
        workgroupBarrier();

        var own_scores: array<f32, 4>;
        var most = UNSEEN;
        for (var j = 0u; j < 4u; j++) {
            let t = tile + part + 8u * j;
            var s = UNSEEN;
            if t >= own_seen.x && t < own_seen.y {
                s = score(scores[own * SCORE_STRIDE + part + 8u * j], kv, own_row, t);
            }
            own_scores[j] = s;
            most = max(most, s);
        }
        eighths[thread] = most;
        workgroupBarrier();
        most = top;
        for (var j = 0u; j < 8u; j++) {
            most = max(most, eighths[own * 8u + j]);
        }
        let change = shrink(top, most);
        top = most;
        sum *= change;
        for (var j = 0u; j < 4u; j++) {
            let w = weight(own_scores[j], most);
            scores[own * SCORE_STRIDE + part + 8u * j] = w;
            sum += w;
        }
        if part == 0u {
            changes[own] = change;
        }
        workgroupBarrier();
        let change0 = changes[pair];
        let change1 = changes[pair + 16u];

        if tile + TILE < end && part < k_blocks {
            q = load_query(q_at, part, u.k_dim);
            k = load_key(k_at + min(tile + TILE + own, end - 1u) * u.k.token, part, u.k_dim);
        }
        for (var slice = 0u; slice < SLICES; slice++) {
            acc[slice][0] *= change0;
            acc[slice][1] *= change1;
            if slice > 0u {
                workgroupBarrier();
                let column = first_column + slice * COLUMNS + lane;
                v0 = load_or_zero(v_at, tile + pair, end, column);
                v1 = load_or_zero(v_at, tile + pair + 16u, end, column);
            }
            pool[pair * COLUMNS + lane] = v0;
            pool[(pair + 16u) * COLUMNS + lane] = v1;
            workgroupBarrier();
            for (var i = 0u; i < TILE; i++) {
                let value = pool[i * COLUMNS + lane];
                acc[slice][0] += scores[pair * SCORE_STRIDE + i] * value;
                acc[slice][1] += scores[(pair + 16u) * SCORE_STRIDE + i] * value;
            }
        }
    }

    workgroupBarrier();
    eighths[thread] = sum;
    workgroupBarrier();
    if part == 0u {
        var total = 0.0;
        for (var j = 0u; j < 8u; j++) {
            total += eighths[thread + j];
        }
        changes[own] = normalizer(kv * u.group + own_row % u.group, top, total);
    }
    workgroupBarrier();
    for (var half = 0u; half < 2u; half++) {
        let row = first + pair + 16u * half;
        if row > last {
            continue;
        }
        let factor = changes[pair + 16u * half];
        let at = u.y.base + (kv * u.group + row % u.group) * u.y.head + row / u.group * u.y.token;
        for (var slice = 0u; slice < SLICES; slice++) {
            let column = first_column + slice * COLUMNS + lane;
            let total = acc[slice][half] * factor;
            for (var e = 0u; e < 4u; e++) {
                if 4u * column + e < u.v_dim {
                    y[at + 4u * column + e] = total[e];
                }
            }
        }
    }
}
