// Four rows of B at a time, for matvecs.
#include "nbits_b.inc.wgsl"
#include "nbits_scale.inc.wgsl"

// A unit of four rows of B.
struct Rows {
    n: vec4<u32>,
    u0: Unit,
    u1: Unit,
    u2: Unit,
    u3: Unit,
}

// Rows first_n to first_n + 3 of those from `begin` on.
fn load_rows(begin: u32, first_n: u32, unit: u32) -> Rows {
    let n = begin + min(vec4<u32>(first_n, first_n + 1u, first_n + 2u, first_n + 3u),
                        vec4<u32>(problem.n_count - 1u));
    return Rows(n, load_unit(n.x, unit), load_unit(n.y, unit), load_unit(n.z, unit),
                load_unit(n.w, unit));
}

fn scales_at(n: vec4<u32>, g: u32) -> vec4<f32> {
    return vec4<f32>(scale_at(n.x, g), scale_at(n.y, g), scale_at(n.z, g), scale_at(n.w, g));
}
