// Who computes a result from its elements: WIDE 1, the 256 invocations of a workgroup, which take every 256th
// element each; WIDE 0, an invocation by itself.
#if WIDE == 1
const step = 256u;

fn result_of(workgroup: u32, lane: u32) -> u32 {
    return workgroup;
}
fn first_of(lane: u32) -> u32 {
    return lane;
}
#else
const step = 1u;

fn result_of(workgroup: u32, lane: u32) -> u32 {
    return workgroup * 256u + lane;
}
fn first_of(lane: u32) -> u32 {
    return 0u;
}
#endif
