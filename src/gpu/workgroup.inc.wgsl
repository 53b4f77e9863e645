// Sums and maxima over a workgroup of LANES invocations (a power of two), in an order that depends on
// LANES alone. Every invocation calls, and every one gets the result.
var<workgroup> lanes: array<f32, LANES>;

fn workgroup_sum(lane: u32, v: f32) -> f32 {
    workgroupBarrier(); // the last result has been read
    lanes[lane] = v;
    for (var half = u32(LANES) / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            lanes[lane] += lanes[lane + half];
        }
    }
    workgroupBarrier();
    return lanes[0];
}

fn workgroup_max(lane: u32, v: f32) -> f32 {
    workgroupBarrier();
    lanes[lane] = v;
    for (var half = u32(LANES) / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            lanes[lane] = max(lanes[lane], lanes[lane + half]);
        }
    }
    workgroupBarrier();
    return lanes[0];
}
