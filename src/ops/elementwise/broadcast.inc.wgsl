// Where elements of up to three broadcast inputs lie; broadcast_gpu.c fills the struct from a
// dbt_broadcast. The including file declares `u` with a field `shape` of this type.
struct Broadcast {
    count: u32, // of the result
    run: u32,   // elements of a run, in which inputs advance by `step` (0 or 1)
    rank: u32,  // of the outer dims, innermost first
    unused: u32,
    step: vec4<u32>,
    dims: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 8>, // by dim: of inputs 0, 1, 2
}

fn sources_of(at: u32) -> vec4<u32> {
    if u.shape.rank == 0u {
        return at * u.shape.step;
    }
    var index = at % u.shape.run * u.shape.step;
    var rest = at / u.shape.run;
    for (var d = 0u; d < u.shape.rank; d++) {
        let dim = u.shape.dims[d >> 2u][d & 3u];
        index += rest % dim * u.shape.strides[d];
        rest /= dim;
    }
    return index;
}
