// A to int8, for nbits_tile_int8.wgsl: each thread quantizes a unit (32 elements) of a row of A.
//
// Bindings: 0 problem, 1 a [M, K], 2 quads [units * 8, m_stride] words, 3 parts [units * UNIT_BLOCKS,
// m_stride]: for each part of a unit that one scale has, the scale's bits and the sum of its q. Rows
// from M to m_stride are zeros.
// 64 threads a workgroup; units * m_stride / 64 workgroups in x and y (dbt_gpu_grid).
#include "nbits_int8.inc.wgsl"

@group(0) @binding(2) var<storage, read_write> quads: array<u32>;
@group(0) @binding(3) var<storage, read_write> parts: array<vec2<u32>>;

fn store_sixteen(sixteen: vec4<u32>, first_quad: u32, m: u32) {
    for (var i = 0u; i < 4u; i++) {
        quads[(first_quad + i) * problem.m_stride + m] = sixteen[i];
    }
}

fn store_part(part: u32, m: u32, scale: f32, sum: i32) {
    parts[part * problem.m_stride + m] = vec2<u32>(bitcast<u32>(scale), bitcast<u32>(sum));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>,
        @builtin(num_workgroups) workgroups: vec3<u32>,
        @builtin(local_invocation_index) t: u32) {
    let i = (workgroup.x + workgroup.y * workgroups.x) * 64u + t;
    let m = i % problem.m_stride;
    let unit = i / problem.m_stride;
    if (unit >= problem.units) {
        return;
    }
#if TRACE == 1
    trace_a_begin(m, unit);
#endif
    let x = quantize_unit(m, unit);
    store_sixteen(x.low.quads, 8u * unit, m);
    store_sixteen(x.high.quads, 8u * unit + 4u, m);
#if UNIT_BLOCKS == 2
    store_part(2u * unit, m, x.scale, x.low.sum);
    store_part(2u * unit + 1u, m, x.second_scale, x.high.sum);
#else
    store_part(unit, m, x.scale, x.low.sum + x.high.sum);
#endif
}
