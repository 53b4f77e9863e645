// The last key and value of a decoding step on their way: every workgroup turns (and normalises) the queries
// that it takes and, where its keys are the last, the new key by itself, and one of them per head writes the
// new rows into the cache. So nothing waits for a dispatch that appends. Rows have at most 256 elements.
// @binding(1) new queries, keys and values; (2) keys, (3) values of the cache; (8), (9) cosines and sines
// [positions, half]; (10), (11) with APPEND 2, which has no sinks' scores: the norms' weights [k_dim] of queries
// and keys.
#include "half.inc.wgsl"
#include "rotary.inc.wgsl"

#if VEC == 0
#error rows that are appended are vectors
#endif

@group(0) @binding(1) var<storage, read> fresh: array<f32>;
#if HALF == 1
@group(0) @binding(2) var<storage, read_write> keys: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> values: array<vec2<u32>>;
#else
@group(0) @binding(2) var<storage, read_write> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> values: array<vec4<f32>>;
#endif
@group(0) @binding(8) var<storage, read> cosines: array<f32>;
@group(0) @binding(9) var<storage, read> sines: array<f32>;
#if APPEND == 2
@group(0) @binding(10) var<storage, read> q_norm: array<f32>;
@group(0) @binding(11) var<storage, read> k_norm: array<f32>;
#endif

const NEW_BLOCKS = 64u; // of four elements

var<workgroup> new_queries: array<vec4<f32>, 4u * NEW_BLOCKS>; // [blocks, 4 rows]
var<workgroup> new_key: array<vec4<f32>, NEW_BLOCKS>;          // as the cache will have them
var<workgroup> new_value: array<vec4<f32>, NEW_BLOCKS>;
var<private> new_key_at: u32; // where they will be in the cache
var<private> new_value_at: u32;

// Vectors i of four rows.
fn load_queries(at: vec4<u32>, i: u32) -> mat4x4<f32> {
    return mat4x4<f32>(new_queries[4u * i], new_queries[4u * i + 1u], new_queries[4u * i + 2u],
                       new_queries[4u * i + 3u]);
}

#if HALF == 1
fn halves(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
fn packed(x: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(half_bits(x.x) | (half_bits(x.y) << 16u),
                     half_bits(x.z) | (half_bits(x.w) << 16u));
}
#else
fn halves(x: vec4<f32>) -> vec4<f32> {
    return x;
}
fn packed(x: vec4<f32>) -> vec4<f32> {
    return x;
}
#endif

fn load_key(at: u32, i: u32, n: u32) -> vec4<f32> {
    if at == new_key_at {
        return new_key[i];
    }
    return halves(keys[at / 4u + i]);
}
fn load_value(at: u32, i: u32, n: u32) -> vec4<f32> {
    if at == new_value_at {
        return new_value[i];
    }
    return halves(values[at / 4u + i]);
}

// Element d of the row at `at` before it turns; scale: of the norm.
fn new_element(of_key: bool, at: u32, d: u32, scale: f32) -> f32 {
#if APPEND == 2
    if of_key {
        return fresh[at + d] * scale * k_norm[d];
    }
    return fresh[at + d] * scale * q_norm[d];
#else
    return fresh[at + d];
#endif
}

fn turned_element(of_key: bool, at: u32, d: u32, scale: f32) -> f32 {
    let x = new_element(of_key, at, d, scale);
    if d >= 2u * u.half {
        return x;
    }
    let t = rotary_turn(Rotary(u.half, u.interleaved), d);
    return rotary_turned(t, x, new_element(of_key, at, t.partner, scale),
                         cosines[u.angles + t.pair], sines[u.angles + t.pair]);
}

fn turned_vector(of_key: bool, at: u32, i: u32, scale: f32) -> vec4<f32> {
    return vec4<f32>(turned_element(of_key, at, 4u * i, scale),
                     turned_element(of_key, at, 4u * i + 1u, scale),
                     turned_element(of_key, at, 4u * i + 2u, scale),
                     turned_element(of_key, at, 4u * i + 3u, scale));
}

struct NormScales {
    queries: vec4<f32>,
    key: f32,
}

#if APPEND == 2
// 1 / sqrt(mean of squares + epsilon) of the rows.
fn norm_scales(q_at: vec4<u32>, k_at: u32, thread: u32) -> NormScales {
    var of_queries = vec4<f32>();
    var of_key = 0.0;
    for (var d = thread; d < u.k_dim; d += THREADS) {
        let x = vec4<f32>(fresh[q_at.x + d], fresh[q_at.y + d], fresh[q_at.z + d], fresh[q_at.w + d]);
        of_queries += x * x;
        of_key += fresh[k_at + d] * fresh[k_at + d];
    }
    pool[thread] = of_queries;
    pool[THREADS + thread].x = of_key;
    for (var n = THREADS / 2u; n > 0u; n /= 2u) {
        workgroupBarrier();
        if thread < n {
            pool[thread] += pool[thread + n];
            pool[THREADS + thread].x += pool[THREADS + thread + n].x;
        }
    }
    workgroupBarrier();
    let scales = NormScales(1.0 / sqrt(pool[0] / f32(u.k_dim) + vec4<f32>(u.epsilon)),
                            1.0 / sqrt(pool[THREADS].x / f32(u.k_dim) + u.epsilon));
    workgroupBarrier();
    return scales;
}
#endif

// By all threads, before anything is loaded: queries at q_at of `fresh`; of head kv the new key and value, if
// the workgroup's keys are the last ones; `writes`: they go to the cache, too.
fn take_new(q_at: vec4<u32>, kv: u32, is_last: bool, writes: bool, thread: u32) {
    let k_from = u.new_k.base + kv * u.new_k.head;
    let v_from = u.new_v.base + kv * u.new_v.head;
    new_key_at = u.k.base + kv * u.k.head + (u.keys - 1u) * u.k.token;
    new_value_at = u.v.base + kv * u.v.head + (u.keys - 1u) * u.v.token;
    var scales = NormScales(vec4<f32>(1.0), 1.0);
#if APPEND == 2
    scales = norm_scales(q_at, k_from, thread);
#endif
    for (var i = thread; i < u.k_dim; i += THREADS) { // 4 rows of k_dim / 4 vectors
        new_queries[i] = turned_vector(false, q_at[i % 4u], i / 4u, scales.queries[i % 4u]);
    }
    if is_last {
        for (var i = thread; i < u.k_dim / 4u; i += THREADS) {
            let key = packed(turned_vector(true, k_from, i, scales.key));
            new_key[i] = halves(key);
            if writes {
                keys[new_key_at / 4u + i] = key;
            }
        }
        for (var i = thread; i < u.v_dim / 4u; i += THREADS) {
            let at = v_from + 4u * i;
            let value = packed(vec4<f32>(fresh[at], fresh[at + 1u], fresh[at + 2u], fresh[at + 3u]));
            new_value[i] = halves(value);
            if writes {
                values[new_value_at / 4u + i] = value;
            }
        }
    }
    workgroupBarrier();
}
