// b: [n_count, k_blocks, block_size * BITS / 8] bytes. Rows are whole units with ALIGNED 1; else block_size is
// 16 and k_blocks odd: rows begin on a half word and end with half a unit. A shader with TILE_M loads
// single quads; others load units, in vectors where they are aligned.
#param ALIGNED 0 1
#include "nbits_problem.inc.wgsl"
#include "nbits_trace.inc.wgsl"
#include "nbits_unpack.inc.wgsl"

#if defined TILE_M || ALIGNED == 0 || BITS == 1 || BITS == 3 || BITS == 5 || BITS == 7
@group(0) @binding(2) var<storage, read> b: array<u32>;
#elif BITS == 2 || BITS == 6
@group(0) @binding(2) var<storage, read> b: array<vec2<u32>>;
#else
@group(0) @binding(2) var<storage, read> b: array<vec4<u32>>;
#endif

#if ALIGNED == 0
// Word i of a unit.
fn load_word(n: u32, unit: u32, i: u32) -> u32 {
    let last = arrayLength(&b) - 1u;
    let begin = BITS * (n * problem.k_blocks + 2u * unit); // in half words
    let word = b[min(begin / 2u + i, last)];
    let next = b[min(begin / 2u + i + 1u, last)];
#if TRACE == 1
    trace_address = 2u * begin + 4u * i;
#endif
    return select(word, (word >> 16u) | (next << 16u), (begin & 1u) == 1u);
}
#elif defined TILE_M
fn load_word(n: u32, unit: u32, i: u32) -> u32 {
    let at = (n * problem.row_units + unit) * BITS + i;
#if TRACE == 1
    trace_address = 4u * at;
#endif
    return b[at];
}
#endif

#if defined TILE_M
fn load_quad(n: u32, unit: u32, q: u32) -> Quad {
    let i = quad_word(q);
    var words = Quad();
    words.x = load_word(n, unit, i);
#if TRACE == 1
    words.z = trace_address;
    words.w = select(TRACE_NONE, unit, is_traced(n));
#endif
    if (quad_crosses(q)) {
        words.y = load_word(n, unit, i + 1u);
    }
    return words;
}
#else
struct Unit {
    low: vec4<u32>,
    high: vec4<u32>, // of more than 4 bits
#if TRACE == 1
    address: u32, // of the first word
    traced: u32,  // the unit, or TRACE_NONE
#endif
}

fn load_unit(n: u32, unit: u32) -> Unit {
    var u: Unit;
#if ALIGNED == 0
    for (var i = 0u; i < min(BITS, 4u); i++) {
        u.low[i] = load_word(n, unit, i);
    }
    for (var i = 4u; i < BITS; i++) {
        u.high[i - 4u] = load_word(n, unit, i);
    }
#if TRACE == 1
    u.address = trace_address - 4u * (BITS - 1u);
#endif
#else
    let i = n * problem.row_units + unit;
#if TRACE == 1
    u.address = 4u * BITS * i;
#endif
#if BITS == 1
    u.low.x = b[i];
#elif BITS == 2
    u.low = vec4<u32>(b[i], 0u, 0u);
#elif BITS == 3
    u.low = vec4<u32>(b[3u * i], b[3u * i + 1u], b[3u * i + 2u], 0u);
#elif BITS == 4
    u.low = b[i];
#elif BITS == 5
    u.low = vec4<u32>(b[5u * i], b[5u * i + 1u], b[5u * i + 2u], b[5u * i + 3u]);
    u.high.x = b[5u * i + 4u];
#elif BITS == 6
    u.low = vec4<u32>(b[3u * i], b[3u * i + 1u]);
    u.high = vec4<u32>(b[3u * i + 2u], 0u, 0u);
#elif BITS == 7
    u.low = vec4<u32>(b[7u * i], b[7u * i + 1u], b[7u * i + 2u], b[7u * i + 3u]);
    u.high = vec4<u32>(b[7u * i + 4u], b[7u * i + 5u], b[7u * i + 6u], 0u);
#else
    u.low = b[2u * i];
    u.high = b[2u * i + 1u];
#endif
#endif
#if TRACE == 1
    u.traced = select(TRACE_NONE, unit, is_traced(n));
#endif
    return u;
}

fn unit_word(u: Unit, i: u32) -> u32 {
    if (i < 4u) {
        return u.low[i];
    }
    return u.high[i - 4u];
}

fn quad_of(u: Unit, q: u32) -> Quad {
    var words = Quad();
    words.x = unit_word(u, quad_word(q));
#if TRACE == 1
    words.z = u.address + 4u * quad_word(q);
    words.w = u.traced;
#endif
    if (quad_crosses(q)) {
        words.y = unit_word(u, quad_word(q) + 1u);
    }
    return words;
}
#endif
