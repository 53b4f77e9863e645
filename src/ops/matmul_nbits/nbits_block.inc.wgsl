// Which blocks the elements of a unit are in.
#param UNIT_BLOCKS 1 2 // blocks in a unit: 2 with block_size 16
#include "nbits_problem.inc.wgsl"
#include "nbits_trace.inc.wgsl"

const BLOCK_QUADS = 8u / UNIT_BLOCKS; // of a unit in one block

// The block of part `part` of a unit; in the last unit it may be past the row.
fn block_of(unit: u32, part: u32) -> u32 {
#if TRACE == 1
    trace_range(32u * unit + 4u * BLOCK_QUADS * part, 4u * BLOCK_QUADS);
#endif
#if UNIT_BLOCKS == 2
    return 2u * unit + part;
#else
    return unit >> (problem.block_shift - 5u);
#endif
}
