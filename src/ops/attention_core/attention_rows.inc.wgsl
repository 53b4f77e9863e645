// Queries, keys and values as they lie in buffers: @binding(1) queries, (2) keys, (3) values.

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
