// ScatterElements and ScatterND without a reduction, in three steps: of several updates of one place the last
// wins, as it does where they are applied in order. A slot is what one update replaces: inner elements of y.
//   STEP 0  slots[s] = 0                                        over the n slots
//   STEP 1  slots[target of update k] = max(itself, k + 1)      over the updates
//   STEP 2  y = the update that won, or x                       over the elements of y
// ND 0: update k has coordinates in dims, of which that on `axis` is replaced by indices[k]. ND 1: indices
// [updates, rank] are all its coordinates. Negative ones count from the end; out of range: no update.
// @binding(1) slots; STEP 1: @binding(2) indices; STEP 2: @binding(2) x, @binding(3) updates [updates, inner],
// @binding(4) y, all words. A workgroup of 256 takes 256 of what the step is over. No features.

#param STEP 0 1 2
#param ND 0 1

#include "grid.inc.wgsl"

struct Uniforms {
    count: u32, // of what the step is over
    inner: u32,
    rank: u32, // dims (of the indices), sizes and strides (of the slots) are innermost first, with ND 1 outermost
    axis: u32,
    dims: array<vec4<u32>, 2>,
    sizes: array<vec4<u32>, 2>,
    strides: array<vec4<u32>, 2>,
}
@group(0) @binding(0) var<uniform> u: Uniforms;
#if STEP == 0
@group(0) @binding(1) var<storage, read_write> slots: array<u32>;
#elif STEP == 1
@group(0) @binding(1) var<storage, read_write> slots: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> indices: array<i32>;
#else
@group(0) @binding(1) var<storage, read> slots: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<u32>;
@group(0) @binding(3) var<storage, read> updates: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<u32>;
#endif

#if STEP == 1
fn mark(i: u32) {
    var slot = 0u;
    var inside = true;
    var rest = i;
    for (var d = 0u; d < u.rank; d++) {
        let size = u.sizes[d >> 2u][d & 3u];
#if ND == 1
        var index = indices[i * u.rank + d];
#else
        let dim = u.dims[d >> 2u][d & 3u];
        var index = bitcast<i32>(rest % dim);
        rest /= dim;
        if d == u.axis {
            index = indices[i];
        }
#endif
        if index < 0 {
            index += i32(size);
        }
        inside = inside && bitcast<u32>(index) < size;
        slot += bitcast<u32>(index) * u.strides[d >> 2u][d & 3u];
    }
    if inside {
        atomicMax(&slots[slot], i + 1u);
    }
}
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = grid_index(group, groups) * 256u + lane;
    if i >= u.count {
        return;
    }
#if STEP == 0
    slots[i] = 0u;
#elif STEP == 1
    mark(i);
#else
    let winner = slots[i / u.inner];
    if winner == 0u {
        y[i] = x[i];
    } else {
        y[i] = updates[(winner - 1u) * u.inner + i % u.inner];
    }
#endif
}
